//! The query parameters of the routes, checked, as the store takes them.

use std::num::NonZeroU64;

use bson::DateTime;
use utoipa::IntoParams;

use super::error::{Answer, ApiError};
use super::uri::{FromQuery, QueryString};
use crate::query::{BulkScope, Cursor, Filter, MatchMode, Order, Page, Terms, TimeRange, Visibility};
use crate::store::Validate;

/// How many items a list has unless the request says otherwise.
const DEFAULT_LIMIT: u64 = 100;

/// How many of a user's latest MemCells are answered unless the request says otherwise.
const DEFAULT_LATEST: u64 = 10;

/// Whether a read is compared with a backend's copy.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ReadParameters {
    /// Whether to compare the MemCell with the backend's copy; the default is the server's configuration. The outcome
    /// is in `x-memcell-validation`.
    #[param(value_type = Option<bool>)]
    pub(super) validate: Validate,
}

impl FromQuery for ReadParameters {
    fn read(query: &mut QueryString) -> Answer<Self> {
        let validate = validation(query.flag("validate")?);
        Ok(Self { validate })
    }
}

/// What a caller's wish for validation means.
pub(super) fn validation(wished: Option<bool>) -> Validate {
    match wished {
        None => Validate::Default,
        Some(true) => Validate::Yes,
        Some(false) => Validate::No,
    }
}

/// How to delete.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DeleteParameters {
    /// Whether to delete for good, which cannot be undone.
    #[param(value_type = Option<bool>, default = false)]
    pub(super) hard: bool,
    /// Who deletes, to be noted in the MemCell; not together with `hard`, which leaves nothing to note it in.
    pub(super) deleted_by: Option<String>,
}

impl FromQuery for DeleteParameters {
    fn read(query: &mut QueryString) -> Answer<Self> {
        let (hard, deleted_by) = (query.flag("hard"), query.text("deleted_by"));
        let (hard, deleted_by) = (hard?.unwrap_or(false), deleted_by?);
        if hard && deleted_by.is_some() {
            return Err(ApiError::invalid_argument("a hard deletion can't note deleted_by: leave one of them out"));
        }
        Ok(Self { hard, deleted_by })
    }
}

/// Times `[start, end)`.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RangeParameters {
    /// Only MemCells with a `timestamp` at or after this time (ISO 8601; UTC if it has no offset, whose `+` must be
    /// written as `%2B`).
    #[param(value_type = Option<String>, format = DateTime)]
    start: Option<DateTime>,
    /// Only MemCells with a `timestamp` before this time.
    #[param(value_type = Option<String>, format = DateTime)]
    end: Option<DateTime>,
}

impl RangeParameters {
    pub(super) fn range(&self) -> TimeRange {
        TimeRange { start: self.start, end: self.end }
    }
}

impl FromQuery for RangeParameters {
    fn read(query: &mut QueryString) -> Answer<Self> {
        let (start, end) = (query.border("start"), query.border("end"));
        let parameters = Self { start: start?, end: end? };
        parameters.range().check()?;
        Ok(parameters)
    }
}

/// Which MemCells a bulk operation is about; at least one parameter must be given.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ScopeParameters {
    /// Only MemCells of exactly this user.
    user_id: Option<String>,
}

/// The parameters of [`BulkScope`].
pub(super) struct Scope(pub(super) BulkScope);

impl FromQuery for Scope {
    fn read(query: &mut QueryString) -> Answer<Self> {
        let (user_id, range) = (query.text("user_id"), RangeParameters::read(query));
        let parameters = ScopeParameters { user_id: user_id? };
        let scope = BulkScope { user_id: parameters.user_id, range: range?.range() };
        scope.check()?;
        Ok(Self(scope))
    }
}

/// Which MemCells a list or a count is about; all conditions must hold.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FilterParameters {
    /// Only MemCells of this user; together with `start` or `end` also those that have the user among their
    /// `participants`.
    user_id: Option<String>,
    /// Only MemCells of this group.
    group_id: Option<String>,
    /// Only MemCells with this participant; repeatable, see `match`.
    #[param(value_type = Option<Vec<String>>, explode)]
    participant: Vec<String>,
    /// Only MemCells with this keyword; repeatable, see `match`.
    #[param(value_type = Option<Vec<String>>, explode)]
    keyword: Vec<String>,
    /// Whether one of the repeated `participant`s (and one of the `keyword`s) is enough.
    #[param(rename = "match", inline, value_type = Option<MatchWord>)]
    mode: MatchMode,
    /// Only MemCells of this `type`.
    #[param(rename = "type")]
    memcell_type: Option<String>,
    /// Whether soft-deleted MemCells are seen.
    #[param(inline, value_type = Option<DeletedWord>)]
    deleted: Visibility,
}

/// The words of `match`.
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "lowercase", default = "any")]
#[expect(dead_code, reason = "describes the words in the OpenAPI document")]
enum MatchWord {
    Any,
    All,
}

/// The words of `deleted`.
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "lowercase", default = "exclude")]
#[expect(dead_code, reason = "describes the words in the OpenAPI document")]
enum DeletedWord {
    Exclude,
    Include,
    Only,
}

/// The parameters of [`Filter`]: [`FilterParameters`] and [`RangeParameters`].
pub(super) struct Selection(pub(super) Filter);

impl FromQuery for Selection {
    fn read(query: &mut QueryString) -> Answer<Self> {
        let user_id = query.text("user_id");
        let group_id = query.text("group_id");
        let participant = query.all("participant");
        let keyword = query.all("keyword");
        let mode = query.word("match", &[("any", MatchMode::Any), ("all", MatchMode::All)]);
        let memcell_type = query.text("type");
        let visibility = [("exclude", Visibility::Live), ("include", Visibility::All), ("only", Visibility::Deleted)];
        let deleted = query.word("deleted", &visibility);
        let range = RangeParameters::read(query);
        let given = FilterParameters {
            user_id: user_id?,
            group_id: group_id?,
            participant,
            keyword,
            mode: mode?.unwrap_or_default(),
            memcell_type: memcell_type?,
            deleted: deleted?.unwrap_or_default(),
        };
        let terms = |terms: Vec<String>| (!terms.is_empty()).then_some(Terms { terms, mode: given.mode });
        Ok(Self(Filter {
            user_id: given.user_id,
            group_id: given.group_id,
            participants: terms(given.participant),
            keywords: terms(given.keyword),
            memcell_type: given.memcell_type,
            range: range?.range(),
            visibility: given.deleted,
        }))
    }
}

/// Which samples are wanted.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct OverviewParameters {
    /// Only samples with a higher `number` than this.
    #[param(value_type = Option<u64>, default = 0)]
    pub(super) since: u64,
}

impl FromQuery for OverviewParameters {
    fn read(query: &mut QueryString) -> Answer<Self> {
        Ok(Self { since: query.count("since")?.unwrap_or(0) })
    }
}

/// Which part of the matching MemCells is answered.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageParameters {
    /// The most MemCells to answer; 0: all of them.
    #[param(value_type = Option<u64>, default = 100)]
    limit: u64,
    /// How many MemCells to leave out first; not together with `cursor`.
    #[param(value_type = Option<u64>, default = 0)]
    skip: u64,
    /// By `timestamp`; `desc` and `asc` are other words for `newest` and `oldest`. A `cursor` has its own order.
    #[param(inline, value_type = Option<OrderWord>)]
    order: Option<Order>,
    /// The `next` of the page before; all other parameters should stay the same.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor>,
}

/// The words of `order`.
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "lowercase", default = "newest")]
#[expect(dead_code, reason = "describes the words in the OpenAPI document")]
enum OrderWord {
    Newest,
    Oldest,
    Desc,
    Asc,
}

/// The parameters of [`Page`].
pub(super) struct Paging(pub(super) Page);

impl FromQuery for Paging {
    fn read(query: &mut QueryString) -> Answer<Self> {
        let limit = query.count("limit");
        let skip = query.count("skip");
        let words = [
            ("newest", Order::NewestFirst),
            ("oldest", Order::OldestFirst),
            ("desc", Order::NewestFirst),
            ("asc", Order::OldestFirst),
        ];
        let order = query.word("order", &words);
        let cursor = query.text("cursor");
        let given = PageParameters {
            limit: limit?.unwrap_or(DEFAULT_LIMIT),
            skip: skip?.unwrap_or(0),
            order: order?,
            cursor: cursor?.map(|text| Cursor::parse(&text)).transpose()?,
        };
        let order = match &given.cursor {
            None => given.order.unwrap_or_default(),
            Some(_) if given.skip > 0 => {
                return Err(ApiError::invalid_argument("a cursor goes on where the page before ended: leave skip out"));
            }
            Some(cursor) if given.order.is_some_and(|order| order != cursor.order()) => {
                return Err(ApiError::invalid_argument("the cursor was made in the other order: leave order out"));
            }
            Some(cursor) => cursor.order(),
        };
        Ok(Self(Page { limit: NonZeroU64::new(given.limit), skip: given.skip, order, cursor: given.cursor }))
    }
}

/// How many of a user's latest MemCells to answer.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct LatestParameters {
    /// The most MemCells to answer; 0: all of them.
    #[param(value_type = Option<u64>, default = 10)]
    limit: u64,
}

impl LatestParameters {
    pub(super) fn limit(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.limit)
    }
}

impl FromQuery for LatestParameters {
    fn read(query: &mut QueryString) -> Answer<Self> {
        Ok(Self { limit: query.count("limit")?.unwrap_or(DEFAULT_LATEST) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<P: FromQuery>(query: &str) -> Answer<P> {
        let mut query = QueryString::parse(query).unwrap();
        let parameters = P::read(&mut query);
        query.finish()?;
        parameters
    }

    #[track_caller]
    fn refused<P: FromQuery>(query: &str, code: &str) {
        let error = read::<P>(query).err().unwrap();
        assert_eq!((error.status().as_u16(), error.code()), (400, code), "{query}");
    }

    /// Exactly the parameters that a route takes are described.
    fn check_described<P: FromQuery>(described: &[Vec<utoipa::openapi::path::Parameter>]) {
        let mut query = QueryString::parse("").unwrap();
        // A scope refuses an empty query, but not before it has looked for everything.
        let _ = P::read(&mut query);
        let mut described: Vec<&str> = described.iter().flatten().map(|parameter| parameter.name.as_str()).collect();
        let mut known = query.known().to_vec();
        described.sort_unstable();
        known.sort_unstable();
        assert_eq!(described, known);
    }

    #[test]
    fn what_is_read_is_what_is_described() {
        fn of<P: IntoParams>() -> Vec<utoipa::openapi::path::Parameter> {
            P::into_params(|| None)
        }
        check_described::<ReadParameters>(&[of::<ReadParameters>()]);
        check_described::<DeleteParameters>(&[of::<DeleteParameters>()]);
        check_described::<RangeParameters>(&[of::<RangeParameters>()]);
        check_described::<Scope>(&[of::<ScopeParameters>(), of::<RangeParameters>()]);
        check_described::<Selection>(&[of::<FilterParameters>(), of::<RangeParameters>()]);
        check_described::<Paging>(&[of::<PageParameters>()]);
        check_described::<LatestParameters>(&[of::<LatestParameters>()]);
    }

    #[test]
    fn a_filter_takes_all_its_conditions() {
        let query = "user_id=u&group_id=g&participant=a&participant=b&keyword=k&match=all&type=Conversation\
                     &start=2025-06-26&end=2025-06-27T00:00:00%2B08:00&deleted=include";
        let Selection(filter) = read(query).unwrap();
        let terms = |terms: &[&str]| {
            Some(Terms { terms: terms.iter().map(|term| (*term).to_owned()).collect(), mode: MatchMode::All })
        };
        let at = crate::memcell::parse_datetime;
        let expected = Filter {
            user_id: Some("u".to_owned()),
            group_id: Some("g".to_owned()),
            participants: terms(&["a", "b"]),
            keywords: terms(&["k"]),
            memcell_type: Some("Conversation".to_owned()),
            range: TimeRange { start: at("2025-06-26T00:00:00Z"), end: at("2025-06-26T16:00:00Z") },
            visibility: Visibility::All,
        };
        assert_eq!(filter, expected);
        assert_eq!(read::<Selection>("").unwrap().0, Filter::default());
    }

    #[test]
    fn backward_ranges_and_unknown_words_are_refused() {
        refused::<Selection>("start=2025-06-27&end=2025-06-26", "invalid_argument");
        refused::<Selection>("match=some", "invalid_argument");
        refused::<Selection>("deleted=true", "invalid_argument");
        refused::<Selection>("groupid=g", "unknown_parameter");
        read::<Selection>("start=2025-06-26&end=2025-06-26").unwrap();
    }

    #[test]
    fn pages_have_a_limit_unless_it_is_zero() {
        assert_eq!(read::<Paging>("").unwrap().0.limit.unwrap().get(), DEFAULT_LIMIT);
        assert_eq!(read::<Paging>("limit=0").unwrap().0.limit, None);
        let page = read::<Paging>("limit=7&skip=3&order=asc").unwrap().0;
        assert_eq!((page.limit.unwrap().get(), page.skip, page.order), (7, 3, Order::OldestFirst));
        refused::<Paging>("limit=-1", "invalid_argument");
        refused::<Paging>("skip=-1", "invalid_argument");
        refused::<Paging>("order=up", "invalid_argument");
    }

    #[test]
    fn a_cursor_brings_its_order() {
        let cell = crate::memcell::MemCell::from_raw(bson::rawdoc! { "_id": 1, "timestamp": DateTime::MIN });
        let cursor = Cursor::after(Order::OldestFirst, &cell).unwrap();
        let page = read::<Paging>(&format!("cursor={cursor}&skip=0")).unwrap().0;
        assert_eq!((page.order, page.cursor.as_ref()), (Order::OldestFirst, Some(&cursor)));
        read::<Paging>(&format!("cursor={cursor}&order=oldest")).unwrap();
        refused::<Paging>(&format!("cursor={cursor}&order=newest"), "invalid_argument");
        refused::<Paging>(&format!("cursor={cursor}&skip=1"), "invalid_argument");
        refused::<Paging>("cursor=nonsense", "invalid_argument");
        refused::<Paging>("cursor=", "invalid_argument");
    }

    #[test]
    fn a_bulk_operation_needs_a_scope_and_takes_no_other_filter() {
        refused::<Scope>("", "invalid_argument");
        refused::<(Scope, DeleteParameters)>("hard=true", "invalid_argument");
        refused::<Scope>("user_id=u&group_id=g", "unknown_parameter");
        refused::<Scope>("user_id=u&start=2025-06-27&end=2025-06-26", "invalid_argument");
        let (Scope(scope), how) = read::<(Scope, DeleteParameters)>("user_id=u&deleted_by=me").unwrap();
        assert_eq!((scope.user_id.as_deref(), how.hard, how.deleted_by.as_deref()), (Some("u"), false, Some("me")));
        assert!(!read::<Scope>("end=2025-06-26").unwrap().0.range.is_unbounded());
    }

    #[test]
    fn a_hard_deletion_notes_nobody() {
        refused::<DeleteParameters>("hard=true&deleted_by=me", "invalid_argument");
        assert!(read::<DeleteParameters>("hard=true").unwrap().hard);
    }
}
