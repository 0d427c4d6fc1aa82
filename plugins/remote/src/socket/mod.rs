//! A TCP connection whose every wait ends at a deadline.
//!
//! In the sandbox it is made of WASI's own streams (`sandboxed`): each of their functions crosses into the host, and the standard
//! library needs twice as many of them for the same. Elsewhere it is the standard library's.

#[cfg(not(target_family = "wasm"))]
mod native;
#[cfg(target_family = "wasm")]
mod sandboxed;

#[cfg(not(target_family = "wasm"))]
pub(crate) use self::native::Socket;
#[cfg(target_family = "wasm")]
pub(crate) use self::sandboxed::Socket;
