//! What all backends of a process share: the compiler, its cache, and the clock that interrupts guests.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wasmtime::{Cache, CacheConfig, Config, OptLevel};

use super::error::LoadError;

/// How often a computing guest is made to yield, so that the deadline around its call can cut it off.
const EPOCH_TICK: Duration = Duration::from_millis(10);

/// How much is written to see whether a cache directory can be written to.
const TRIAL_BYTES: usize = 64 * 1024;

/// Stack that a guest may use; deeper recursion is a trap.
const GUEST_STACK_BYTES: usize = 1024 * 1024;

/// Stack of the fiber a guest runs on: its own and what host functions need on top.
const FIBER_STACK_BYTES: usize = 2 * 1024 * 1024;

/// The WebAssembly engine. Cheap to clone; its clock goes on until the last clone is gone, those in plugins included.
#[derive(Clone)]
pub struct Engine {
    pub(super) inner: wasmtime::Engine,
    _ticker: Arc<Ticker>,
}

impl Engine {
    /// An engine whose compiled code is kept in `cache_directory` (`None`: compiled anew each time).
    ///
    /// # Errors
    /// If the directory can't be used, or the machine isn't one that Wasmtime compiles for.
    pub fn new(cache_directory: Option<PathBuf>) -> Result<Self, LoadError> {
        let failed = |error: wasmtime::Error| LoadError::Engine(format!("{error:#}"));
        let mut config = Config::new();
        config
            .wasm_component_model(true)
            .concurrency_support(false)
            .epoch_interruption(true)
            .max_wasm_stack(GUEST_STACK_BYTES)
            .async_stack_size(FIBER_STACK_BYTES)
            .cranelift_opt_level(OptLevel::Speed);
        if let Some(directory) = cache_directory {
            let mut cache = CacheConfig::new();
            cache.with_directory(directory);
            config.cache(Some(Cache::new(cache).map_err(failed)?));
        }
        let inner = wasmtime::Engine::new(&config).map_err(failed)?;
        let ticker = Ticker::start(inner.clone()).map_err(|error| LoadError::Engine(error.to_string()))?;
        Ok(Self { inner, _ticker: Arc::new(ticker) })
    }

    /// Whether something can be kept in a cache directory. The engine itself goes on without a word if it can't: what is there already is
    /// of use all the same.
    ///
    /// # Errors
    /// Why not.
    pub fn try_cache(directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        let trial = directory.join(format!(".trial-{}", std::process::id()));
        let tried = fs::write(&trial, [0; TRIAL_BYTES]);
        let removed = fs::remove_file(&trial);
        tried.and(removed)
    }

    /// Where compiled plugins are kept between runs: `memcell/compiled` in the user's cache directory, if there is one.
    pub fn default_cache_directory() -> Option<PathBuf> {
        let from = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = from("XDG_CACHE_HOME").or_else(|| from("HOME").map(|home| home.join(".cache")))?;
        Some(base.join("memcell").join("compiled"))
    }
}

/// The thread that counts the engine's epochs.
struct Ticker {
    stop: Arc<AtomicBool>,
}

impl Ticker {
    fn start(engine: wasmtime::Engine) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        std::thread::Builder::new().name("kv-epoch".into()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(EPOCH_TICK);
                engine.increment_epoch();
            }
        })?;
        Ok(Self { stop })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
