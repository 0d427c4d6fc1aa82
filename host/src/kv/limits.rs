//! What an instance may use at the most, and whether it ran into it.

use wasmtime::ResourceLimiter;

use crate::config::LimitsConfig;

/// Memories of one instance: the component's own, and those of the adapters that come with it.
const MAX_MEMORIES: usize = 16;

/// What was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    Memory,
    TableElements,
}

/// Counts what one instance allocates; a request beyond a limit is denied, and the denial remembered: a guest mostly
/// answers it with a trap, whose own reason says nothing of it.
#[derive(Debug)]
pub(super) struct Limiter {
    memory_limit: usize,
    memory_used: usize,
    table_elements_limit: usize,
    table_elements_used: usize,
    instances: usize,
    tables: usize,
    denied: Option<Denied>,
}

impl Limiter {
    pub(super) fn new(limits: &LimitsConfig) -> Self {
        Self {
            memory_limit: usize::try_from(limits.memory).unwrap_or(usize::MAX),
            memory_used: 0,
            table_elements_limit: limits.table_elements,
            table_elements_used: 0,
            instances: limits.instances,
            tables: limits.tables,
            denied: None,
        }
    }

    /// Bytes of linear memory in use.
    pub(super) fn memory_used(&self) -> usize {
        self.memory_used
    }

    /// What was denied last, since the last time this was asked.
    pub(super) fn take_denied(&mut self) -> Option<Denied> {
        self.denied.take()
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let used = self.memory_used.saturating_add(desired.saturating_sub(current));
        let allowed = used <= self.memory_limit;
        if allowed {
            self.memory_used = used;
        } else {
            self.denied = Some(Denied::Memory);
        }
        Ok(allowed)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let used = self.table_elements_used.saturating_add(desired.saturating_sub(current));
        let allowed = used <= self.table_elements_limit;
        if allowed {
            self.table_elements_used = used;
        } else {
            self.denied = Some(Denied::TableElements);
        }
        Ok(allowed)
    }

    fn instances(&self) -> usize {
        self.instances
    }

    fn tables(&self) -> usize {
        self.tables
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(memory: u64, table_elements: usize) -> Limiter {
        let config = crate::config::BackendConfig::new("test", "x.wasm".into());
        Limiter::new(&LimitsConfig { memory, table_elements, ..config.limits })
    }

    #[test]
    fn memories_share_one_limit() {
        let mut limiter = limiter(100, 10);
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(!limiter.memory_growing(0, 41, None).unwrap());
        assert_eq!(limiter.take_denied(), Some(Denied::Memory));
        assert_eq!(limiter.take_denied(), None);
        assert!(limiter.memory_growing(60, 100, None).unwrap());
        assert_eq!(limiter.memory_used(), 100);
    }

    #[test]
    fn tables_share_one_limit() {
        let mut limiter = limiter(100, 10);
        assert!(limiter.table_growing(0, 8, None).unwrap());
        assert!(!limiter.table_growing(0, 3, None).unwrap());
        assert_eq!(limiter.take_denied(), Some(Denied::TableElements));
        assert!(limiter.table_growing(8, 10, None).unwrap());
        assert_eq!(limiter.take_denied(), None);
    }
}
