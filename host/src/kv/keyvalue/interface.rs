//! The interfaces `store` and `batch` of `wasi:keyvalue`, as far as the host calls them: which drafts it knows, what their
//! functions look like, and how they are called.
//!
//! The texts of the two drafts are in `host/wit/`. They differ in the type of a listing's cursor and in nothing else that the
//! host uses, so the functions are looked up by name and checked by type here instead of being generated once per draft.

use wasmtime::Store;
use wasmtime::component::types::{ComponentFunc, ComponentItem, Type};
use wasmtime::component::{
    Component, ComponentExportIndex, ComponentNamedList, ComponentType, Instance, Lift, Lower, ResourceAny, TypedFunc,
};

use super::Failure;
use crate::kv::bindings::memcell::kv::types::Error as GuestError;
use crate::kv::error::shown;
use crate::kv::sandbox::Sandbox;

/// The package of the standard.
pub(in crate::kv) const PACKAGE: &str = "wasi:keyvalue";

/// A published draft of the standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kv) enum Draft {
    /// `0.2.0-draft`: cursors are numbers.
    One,
    /// `0.2.0-draft2`: cursors are text.
    Two,
}

impl Draft {
    /// The drafts that the host knows, the newest first.
    pub(in crate::kv) const ALL: [Self; 2] = [Self::Two, Self::One];

    pub(in crate::kv) fn version(self) -> &'static str {
        match self {
            Self::One => "0.2.0-draft",
            Self::Two => "0.2.0-draft2",
        }
    }

    /// The full name of one of its interfaces, as a component exports it.
    pub(in crate::kv) fn interface(self, name: &str) -> String {
        format!("{PACKAGE}/{name}@{}", self.version())
    }

    fn cursor_type(self) -> &'static str {
        match self {
            Self::One => "u64",
            Self::Two => "string",
        }
    }
}

/// Where the functions of a component are.
#[derive(Clone)]
pub(super) struct Exports {
    draft: Draft,
    open: ComponentExportIndex,
    get: ComponentExportIndex,
    set: ComponentExportIndex,
    delete: ComponentExportIndex,
    exists: ComponentExportIndex,
    list_keys: ComponentExportIndex,
    batch: Option<BatchExports>,
}

#[derive(Clone)]
struct BatchExports {
    get_many: ComponentExportIndex,
    set_many: ComponentExportIndex,
    delete_many: ComponentExportIndex,
}

const ERROR: &str = "variant{no-such-store, access-denied, other(string)}";

impl Exports {
    /// Finds the functions of `draft` in a component that exports its interface `store`; `batch` as well if it is there.
    ///
    /// # Errors
    /// The first function that is missing or has another type, in words.
    pub(super) fn find(component: &Component, draft: Draft) -> Result<Self, String> {
        let cursor = draft.cursor_type();
        let store = component.get_export_index(None, &*draft.interface("store")).ok_or("there is no `store`")?;
        let batch = component.get_export_index(None, &*draft.interface("batch"));
        let find = |interface, name: &str, expected: String| function(component, interface, name, &expected);
        Ok(Self {
            draft,
            open: find(&store, "open", format!("(string) -> result<own, {ERROR}>"))?,
            get: find(&store, "[method]bucket.get", format!("(borrow, string) -> result<option<list<u8>>, {ERROR}>"))?,
            set: find(&store, "[method]bucket.set", format!("(borrow, string, list<u8>) -> result<_, {ERROR}>"))?,
            delete: find(&store, "[method]bucket.delete", format!("(borrow, string) -> result<_, {ERROR}>"))?,
            exists: find(&store, "[method]bucket.exists", format!("(borrow, string) -> result<bool, {ERROR}>"))?,
            list_keys: find(
                &store,
                "[method]bucket.list-keys",
                format!(
                    "(borrow, option<{cursor}>) -> \
                     result<record{{keys: list<string>, cursor: option<{cursor}>}}, {ERROR}>"
                ),
            )?,
            batch: match batch {
                None => None,
                Some(batch) => Some(BatchExports {
                    get_many: find(
                        &batch,
                        "get-many",
                        format!("(borrow, list<string>) -> result<list<option<tuple<string, list<u8>>>>, {ERROR}>"),
                    )?,
                    set_many: find(
                        &batch,
                        "set-many",
                        format!("(borrow, list<tuple<string, list<u8>>>) -> result<_, {ERROR}>"),
                    )?,
                    delete_many: find(&batch, "delete-many", format!("(borrow, list<string>) -> result<_, {ERROR}>"))?,
                }),
            },
        })
    }

    pub(super) fn draft(&self) -> Draft {
        self.draft
    }

    pub(super) fn has_batch(&self) -> bool {
        self.batch.is_some()
    }
}

fn function(
    component: &Component,
    interface: &ComponentExportIndex,
    name: &str,
    expected: &str,
) -> Result<ComponentExportIndex, String> {
    let Some((ComponentItem::ComponentFunc(function), index)) = component.get_export(Some(interface), name) else {
        return Err(format!("there is no function `{name}`"));
    };
    let found = signature(&function);
    if found != expected {
        return Err(format!("`{name}` is {found}, where {expected} is due"));
    }
    Ok(index)
}

/// The type of a function in about the words of WIT; resources go without their names.
fn signature(function: &ComponentFunc) -> String {
    let list = |types: &mut dyn Iterator<Item = Type>| types.map(|ty| shape(&ty)).collect::<Vec<_>>().join(", ");
    let results = list(&mut function.results());
    format!("({}) -> {results}", list(&mut function.params().map(|(_, ty)| ty)))
}

fn shape(ty: &Type) -> String {
    let optional = |ty: Option<Type>| ty.as_ref().map_or_else(|| "_".to_owned(), shape);
    match ty {
        Type::Bool => "bool".to_owned(),
        Type::U8 => "u8".to_owned(),
        Type::U32 => "u32".to_owned(),
        Type::U64 => "u64".to_owned(),
        Type::S64 => "s64".to_owned(),
        Type::String => "string".to_owned(),
        Type::List(list) => format!("list<{}>", shape(&list.ty())),
        Type::Option(option) => format!("option<{}>", shape(&option.ty())),
        Type::Result(result) => format!("result<{}, {}>", optional(result.ok()), optional(result.err())),
        Type::Tuple(tuple) => format!("tuple<{}>", tuple.types().map(|ty| shape(&ty)).collect::<Vec<_>>().join(", ")),
        Type::Record(record) => {
            let fields = record.fields().map(|field| format!("{}: {}", field.name, shape(&field.ty)));
            format!("record{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        Type::Variant(variant) => {
            let cases = variant.cases().map(|case| match case.ty {
                Some(ty) => format!("{}({})", case.name, shape(&ty)),
                None => case.name.to_owned(),
            });
            format!("variant{{{}}}", cases.collect::<Vec<_>>().join(", "))
        }
        Type::Own(_) => "own".to_owned(),
        Type::Borrow(_) => "borrow".to_owned(),
        _ => "another type".to_owned(),
    }
}

/// Why the component says that it did not do what it was asked.
#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(super) enum StoreError {
    /// It has no bucket of that name.
    #[component(name = "no-such-store")]
    NoSuchStore,
    /// It has one, and not for us.
    #[component(name = "access-denied")]
    AccessDenied,
    /// Anything else.
    #[component(name = "other")]
    Other(String),
}

impl From<StoreError> for GuestError {
    /// The error of a call on a bucket that was there when it was opened.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSuchStore => Self::Unavailable("its bucket is gone".to_owned()),
            StoreError::AccessDenied => Self::Unavailable("it denies access to its bucket".to_owned()),
            StoreError::Other(text) => Self::Other(text),
        }
    }
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
struct KeyResponse<C> {
    keys: Vec<String>,
    cursor: Option<C>,
}

/// A position in a listing: whatever the component made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cursor {
    /// As in [`Draft::One`].
    Number(u64),
    /// As in [`Draft::Two`].
    Text(String),
}

/// A value with its key.
type Pair = (String, Vec<u8>);

type Function<P, T> = TypedFunc<P, (Result<T, StoreError>,)>;

/// The functions of an instance, ready to be called.
pub(super) struct Functions {
    open: Function<(String,), ResourceAny>,
    get: Function<(ResourceAny, String), Option<Vec<u8>>>,
    set: Function<(ResourceAny, String, Vec<u8>), ()>,
    delete: Function<(ResourceAny, String), ()>,
    exists: Function<(ResourceAny, String), bool>,
    list_keys: ListKeys,
    batch: Option<Batch>,
}

enum ListKeys {
    ByNumber(Function<(ResourceAny, Option<u64>), KeyResponse<u64>>),
    ByText(Function<(ResourceAny, Option<String>), KeyResponse<String>>),
}

/// What a component may leave out.
pub(super) struct Batch {
    get_many: Function<(ResourceAny, Vec<String>), Vec<Option<Pair>>>,
    set_many: Function<(ResourceAny, Vec<Pair>), ()>,
    delete_many: Function<(ResourceAny, Vec<String>), ()>,
}

impl Functions {
    /// The functions of an instance of the component that `exports` were found in.
    pub(super) fn of(instance: &Instance, store: &mut Store<Sandbox>, exports: &Exports) -> wasmtime::Result<Self> {
        let list_keys = match exports.draft {
            Draft::One => ListKeys::ByNumber(instance.get_typed_func(&mut *store, exports.list_keys)?),
            Draft::Two => ListKeys::ByText(instance.get_typed_func(&mut *store, exports.list_keys)?),
        };
        let batch = match &exports.batch {
            None => None,
            Some(batch) => Some(Batch {
                get_many: instance.get_typed_func(&mut *store, batch.get_many)?,
                set_many: instance.get_typed_func(&mut *store, batch.set_many)?,
                delete_many: instance.get_typed_func(&mut *store, batch.delete_many)?,
            }),
        };
        Ok(Self {
            open: instance.get_typed_func(&mut *store, exports.open)?,
            get: instance.get_typed_func(&mut *store, exports.get)?,
            set: instance.get_typed_func(&mut *store, exports.set)?,
            delete: instance.get_typed_func(&mut *store, exports.delete)?,
            exists: instance.get_typed_func(&mut *store, exports.exists)?,
            list_keys,
            batch,
        })
    }

    /// The bucket of that name.
    pub(super) async fn open(&self, store: &mut Store<Sandbox>, name: &str) -> Result<ResourceAny, Failure> {
        match call(&self.open, store, (name.to_owned(),)).await? {
            Ok(bucket) => Ok(bucket),
            Err(StoreError::NoSuchStore) => {
                let text = format!("it has no bucket {name:?}; name one that it has in the setting `bucket`");
                Err(Failure::Refused(GuestError::InvalidArgument(text)))
            }
            Err(StoreError::AccessDenied) => {
                let text = format!("it denies access to the bucket {name:?}");
                Err(Failure::Refused(GuestError::InvalidArgument(text)))
            }
            Err(error) => Err(Failure::Refused(error.into())),
        }
    }

    /// Whether there is something under `key`.
    pub(super) async fn exists(
        &self,
        store: &mut Store<Sandbox>,
        bucket: ResourceAny,
        key: &str,
    ) -> Result<bool, Failure> {
        answered(call(&self.exists, store, (bucket, key.to_owned())).await?)
    }

    /// What is under each key, in the order of the keys.
    pub(super) async fn get(
        &self,
        store: &mut Store<Sandbox>,
        bucket: ResourceAny,
        keys: &[String],
    ) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        let Some(batch) = &self.batch else {
            let mut values = Vec::with_capacity(keys.len());
            for key in keys {
                values.push(answered(call(&self.get, store, (bucket, key.clone())).await?)?);
            }
            return Ok(values);
        };
        let found = answered(call(&batch.get_many, store, (bucket, keys.to_vec())).await?)?;
        if found.len() != keys.len() {
            return Err(Failure::Answers { due: keys.len(), given: found.len() });
        }
        let mut values = Vec::with_capacity(keys.len());
        for (key, pair) in keys.iter().zip(found) {
            values.push(match pair {
                None => None,
                Some((answered, value)) if answered == *key => Some(value),
                Some((answered, _)) => {
                    let reason = format!("asked for {}, it answered {}", shown(key), shown(&answered));
                    return Err(Failure::Contract(reason));
                }
            });
        }
        Ok(values)
    }

    /// Puts each value under its key; no key occurs twice.
    pub(super) async fn set(
        &self,
        store: &mut Store<Sandbox>,
        bucket: ResourceAny,
        pairs: Vec<Pair>,
    ) -> Result<(), Failure> {
        match &self.batch {
            _ if pairs.is_empty() => Ok(()),
            Some(batch) => answered(call(&batch.set_many, store, (bucket, pairs)).await?),
            None => {
                for (key, value) in pairs {
                    answered(call(&self.set, store, (bucket, key, value)).await?)?;
                }
                Ok(())
            }
        }
    }

    /// Takes away what is under each key, if there is something.
    pub(super) async fn delete(
        &self,
        store: &mut Store<Sandbox>,
        bucket: ResourceAny,
        keys: Vec<String>,
    ) -> Result<(), Failure> {
        match &self.batch {
            _ if keys.is_empty() => Ok(()),
            Some(batch) => answered(call(&batch.delete_many, store, (bucket, keys)).await?),
            None => {
                for key in keys {
                    answered(call(&self.delete, store, (bucket, key)).await?)?;
                }
                Ok(())
            }
        }
    }

    /// One page of keys from `cursor` on, as large as the component likes, and where the next one begins.
    pub(super) async fn list_keys(
        &self,
        store: &mut Store<Sandbox>,
        bucket: ResourceAny,
        cursor: Option<Cursor>,
    ) -> Result<(Vec<String>, Option<Cursor>), Failure> {
        let before = cursor.clone();
        let (keys, next) = match (&self.list_keys, cursor) {
            (ListKeys::ByNumber(list), None | Some(Cursor::Text(_))) => by_number(list, store, bucket, None).await?,
            (ListKeys::ByNumber(list), Some(Cursor::Number(at))) => by_number(list, store, bucket, Some(at)).await?,
            (ListKeys::ByText(list), None | Some(Cursor::Number(_))) => by_text(list, store, bucket, None).await?,
            (ListKeys::ByText(list), Some(Cursor::Text(at))) => by_text(list, store, bucket, Some(at)).await?,
        };
        if next.is_some() && next == before {
            return Err(Failure::Contract("the next cursor is the same as the one before".to_owned()));
        }
        Ok((keys, next))
    }
}

async fn by_number(
    list: &Function<(ResourceAny, Option<u64>), KeyResponse<u64>>,
    store: &mut Store<Sandbox>,
    bucket: ResourceAny,
    cursor: Option<u64>,
) -> Result<(Vec<String>, Option<Cursor>), Failure> {
    let KeyResponse { keys, cursor } = answered(call(list, store, (bucket, cursor)).await?)?;
    Ok((keys, cursor.map(Cursor::Number)))
}

async fn by_text(
    list: &Function<(ResourceAny, Option<String>), KeyResponse<String>>,
    store: &mut Store<Sandbox>,
    bucket: ResourceAny,
    cursor: Option<String>,
) -> Result<(Vec<String>, Option<Cursor>), Failure> {
    let KeyResponse { keys, cursor } = answered(call(list, store, (bucket, cursor)).await?)?;
    Ok((keys, cursor.map(Cursor::Text)))
}

async fn call<P, T>(
    function: &Function<P, T>,
    store: &mut Store<Sandbox>,
    parameters: P,
) -> wasmtime::Result<Result<T, StoreError>>
where
    P: ComponentNamedList + Lower + Send + Sync,
    T: Lift + Send + Sync + 'static,
{
    let (answer,) = function.call_async(store, parameters).await?;
    Ok(answer)
}

fn answered<T>(answer: Result<T, StoreError>) -> Result<T, Failure> {
    answer.map_err(|error| Failure::Refused(error.into()))
}
