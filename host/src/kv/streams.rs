//! Writing to streams, for guests: no more at a time than a stream says that it takes.
//!
//! A stream to a file hands what it is given to another thread and keeps it until that has written it. Held to the contract
//! of `wasi:io`, an instance keeps at most [`MAX_WRITE_BYTES`] for each of its handles that way.

use wasmtime::component::{Linker, Resource};
use wasmtime::{StoreContextMut, bail};
use wasmtime_wasi::p2::DynOutputStream;
use wasmtime_wasi::p2::bindings::io::streams::{Host, HostOutputStream, StreamError};

use super::sandbox::Sandbox;

const INTERFACE: &str = "wasi:io/streams@0.2.12";

/// The most that any stream of `wasmtime-wasi` announces.
const MAX_WRITE_BYTES: usize = 64 * 1024;

/// Puts the function into `linker`, in place of the one that checks nothing.
pub(super) fn add_to_linker(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    linker.instance(INTERFACE)?.func_wrap("[method]output-stream.write", write)
}

type Written = (Result<(), StreamError>,);

fn write(
    mut store: StoreContextMut<'_, Sandbox>,
    (stream, bytes): (Resource<DynOutputStream>, Vec<u8>),
) -> wasmtime::Result<Written> {
    if bytes.len() > MAX_WRITE_BYTES {
        bail!("it wrote {} bytes at once to a stream that takes {MAX_WRITE_BYTES} at the most", bytes.len());
    }
    let table = store.data_mut().table();
    match HostOutputStream::write(table, stream, bytes) {
        Ok(()) => Ok((Ok(()),)),
        Err(error) => Ok((Err(Host::convert_stream_error(table, error)?),)),
    }
}
