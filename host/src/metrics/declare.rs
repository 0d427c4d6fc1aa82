//! What a figure consists of, and the macros that make everything else out of its declaration in `families`.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::atomic::AtomicU64;
use std::sync::{PoisonError, RwLock};

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric};
pub(super) use prometheus_client::metrics::counter::Counter;
pub(super) use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::family::MetricConstructor;
pub(super) use prometheus_client::metrics::gauge::Gauge;
pub(super) use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Registry, Unit};

/// A counter of something that comes in parts, such as time.
pub(super) type FloatCounter = Counter<f64, AtomicU64>;

/// A level that comes in parts.
pub(super) type FloatGauge = Gauge<f64, AtomicU64>;

/// The labels of a figure of which there is only one.
pub(super) type NoLabels = [(&'static str, &'static str); 0];

/// One family of figures, as it was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Its full name, without what a type adds to it: `memcell_operations`, `memcell_operation_duration_seconds`.
    pub family: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The names of its labels. `le` of a histogram comes on top.
    pub labels: &'static [&'static str],
    /// `seconds` or `bytes`; `None` for what is counted.
    pub unit: Option<String>,
    /// What it says.
    pub help: String,
}

impl Declared {
    pub(super) fn of<S: Labels, M: TypedMetric>(prefix: &str, name: &str, unit: Option<&Unit>, help: &str) -> Self {
        let kind = match M::TYPE {
            MetricType::Counter => "counter",
            MetricType::Histogram => "histogram",
            _ => "gauge",
        };
        let unit = unit.map(|unit| unit.as_str().to_owned());
        let suffix = unit.as_ref().map(|unit| format!("_{unit}")).unwrap_or_default();
        let family = format!("{prefix}_{name}{suffix}");
        Self { family, kind, labels: S::NAMES, unit, help: sentence(help).to_owned() }
    }

    /// The names that its series have in a query.
    pub fn series(&self) -> Vec<String> {
        let named = |suffixes: &[&str]| suffixes.iter().map(|suffix| format!("{}{suffix}", self.family)).collect();
        match self.kind {
            "counter" => named(&["_total"]),
            "histogram" => named(&["_bucket", "_sum", "_count"]),
            _ => named(&[""]),
        }
    }
}

/// A set of labels.
pub(super) trait Labels: EncodeLabelSet + Clone + Hash + Eq + std::fmt::Debug + Send + Sync + 'static {
    /// Their names.
    const NAMES: &'static [&'static str];
}

impl Labels for NoLabels {
    const NAMES: &'static [&'static str] = &[];
}

/// Sets of labels: `Name { label: Type, … }`.
macro_rules! labels {
    ($( $name:ident { $( $label:ident: $type:ty ),+ } )+) => { $(
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $name { $( pub(super) $label: $type ),+ }

        impl Labels for $name {
            const NAMES: &'static [&'static str] = &[$( stringify!($label) ),+];
        }
    )+ };
}

/// Declares families of figures: `/// what it says` and `name: Type[Labels] in Unit by buckets,` for each. What comes before the
/// name is `named`; the last two parts are for those who have them.
macro_rules! families {
    (
        $(#[doc = $about:literal])+
        $all:ident, named $prefix:literal {
            $(
                $(#[doc = $help:literal])+
                $family:ident: $kind:ident[$labels:ident] $(in $unit:ident)? $(by $buckets:ident)?,
            )+
        }
    ) => {
        $(#[doc = $about])+
        pub(super) struct $all {
            $( $(#[doc = $help])+ pub(super) $family: Family<$labels, $kind>, )+
        }

        impl $all {
            /// Registers all of them, at zero.
            pub(super) fn register(registry: &mut Registry) -> Self {
                let registry = registry.sub_registry_with_prefix($prefix);
                let all = Self { $( $family: families!(@new $($buckets)?), )+ };
                $( register(
                    registry,
                    stringify!($family),
                    families!(@unit $($unit)?),
                    concat!($($help),+),
                    &all.$family,
                ); )+
                all
            }

            /// What was declared.
            pub(super) fn declared() -> Vec<Declared> {
                vec![$( Declared::of::<$labels, $kind>(
                    $prefix,
                    stringify!($family),
                    families!(@unit $($unit)?).as_ref(),
                    concat!($($help),+),
                ) ),+]
            }
        }
    };
    (@new) => { Family::default() };
    (@new $buckets:ident) => { Family::new_with_constructor($buckets as fn() -> Histogram) };
    (@unit) => { None::<Unit> };
    (@unit $unit:ident) => { Some(Unit::$unit) };
}

/// As [`families!`], for figures that exist once per backend: `each` is the part of one backend, which can be removed as a whole.
macro_rules! families_of_backends {
    ($(#[doc = $about:literal])+ $all:ident, named $prefix:literal, each $each:ident { $($body:tt)+ }) => {
        families! { $(#[doc = $about])+ $all, named $prefix { $($body)+ } }
        families_of_backends! { @each $all, $each { $($body)+ } }
    };
    (@each $all:ident, $each:ident {
        $(
            $(#[doc = $help:literal])+
            $family:ident: $kind:ident[$labels:ident] $(in $unit:ident)? $(by $buckets:ident)?,
        )+
    }) => {
        /// What one backend has of each family.
        pub(super) struct $each {
            $( $(#[doc = $help])+ pub(super) $family: Own<$labels, $kind>, )+
        }

        impl $each {
            pub(super) fn of(all: &$all) -> Self {
                Self { $( $family: Own::of(&all.$family), )+ }
            }

            /// Takes all of them out of what is shown.
            pub(super) fn remove_all(&self) {
                $( self.$family.remove_all(); )+
            }
        }
    };
}

pub(super) use {families, families_of_backends, labels};

/// The part of a family that belongs to one backend.
pub(super) struct Own<S, M> {
    family: Family<S, M>,
    made: RwLock<HashSet<S>>,
}

impl<S: Clone + Hash + Eq, M: Clone> Own<S, M>
where
    fn() -> M: MetricConstructor<M>,
{
    pub(super) fn of(family: &Family<S, M>) -> Self {
        Self { family: family.clone(), made: RwLock::new(HashSet::new()) }
    }

    /// The metric with these labels, made if need be.
    pub(super) fn get(&self, labels: &S) -> M {
        if !self.made.read().unwrap_or_else(PoisonError::into_inner).contains(labels) {
            self.made.write().unwrap_or_else(PoisonError::into_inner).insert(labels.clone());
        }
        self.family.get_or_create_owned(labels)
    }

    /// Takes out the one with these labels.
    pub(super) fn remove(&self, labels: &S) {
        if self.made.write().unwrap_or_else(PoisonError::into_inner).remove(labels) {
            self.family.remove(labels);
        }
    }

    /// Takes out those whose labels don't fit.
    pub(super) fn retain(&self, fits: impl Fn(&S) -> bool) {
        self.made.write().unwrap_or_else(PoisonError::into_inner).retain(|labels| {
            let fits = fits(labels);
            if !fits {
                self.family.remove(labels);
            }
            fits
        });
    }

    /// Shows each that there is.
    pub(super) fn each(&self, show: impl Fn(&S, &M)) {
        for labels in self.made.read().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Some(metric) = self.family.get(labels) {
                show(labels, &metric);
            }
        }
    }

    pub(super) fn remove_all(&self) {
        for labels in self.made.write().unwrap_or_else(PoisonError::into_inner).drain() {
            self.family.remove(&labels);
        }
    }
}

pub(super) fn register<S: Labels, M>(
    registry: &mut Registry,
    name: &str,
    unit: Option<Unit>,
    help: &str,
    family: &Family<S, M>,
) where
    M: EncodeMetric + TypedMetric + std::fmt::Debug + Send + Sync + 'static,
{
    let (help, family) = (sentence(help), family.clone());
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, family),
        None => registry.register(name, help, family),
    }
}

/// A doc comment without its margin and its full stop, which the registry puts there again.
fn sentence(doc: &str) -> &str {
    doc.trim().trim_end_matches('.')
}
