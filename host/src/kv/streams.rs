//! Writing to streams, for guests: no more at a time than a stream says that it takes, and no waiting for what nobody takes.
//!
//! A stream to a file hands what it is given to another thread and keeps it until that has written it. Held to the contract
//! of `wasi:io`, an instance keeps at most [`MAX_WRITE_BYTES`] for each of its handles that way.
//!
//! A guest that is done with a stream waits until that has written what it took. If that is a connection to a server which has stopped
//! reading, it waits for ever, and its call runs into the deadline. So it goes on after a moment, and the rest is sent behind its back,
//! as the system does it with a socket that a process has closed.

use std::time::Duration;

use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime::{StoreContextMut, bail};
use wasmtime_wasi::p2::DynOutputStream;
use wasmtime_wasi::p2::bindings::io::streams::{Host, HostOutputStream, StreamError};

use super::sandbox::Sandbox;

const INTERFACE: &str = "wasi:io/streams@0.2.12";

/// The most that any stream of `wasmtime-wasi` announces.
const MAX_WRITE_BYTES: usize = 64 * 1024;

/// How long a guest waits for a stream that it is done with.
const FINISHING: Duration = Duration::from_millis(100);

/// How long what such a stream still has is kept and tried to be written.
const DELIVERY: Duration = Duration::from_secs(10);

/// Puts what this is about into `linker`, in place of what checks nothing and waits for ever.
pub(super) fn add_to_linker(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    let mut streams = linker.instance(INTERFACE)?;
    streams.func_wrap("[method]output-stream.write", write)?;
    streams.resource_async("output-stream", ResourceType::host::<DynOutputStream>(), |store, number| {
        Box::new(end(store, Resource::new_own(number)))
    })
}

async fn end(mut store: StoreContextMut<'_, Sandbox>, stream: Resource<DynOutputStream>) -> wasmtime::Result<()> {
    let mut stream = store.data_mut().table().delete(stream)?;
    let mut finishing = Box::pin(async move { stream.cancel().await });
    if tokio::time::timeout(FINISHING, &mut finishing).await.is_err() {
        tokio::spawn(tokio::time::timeout(DELIVERY, finishing));
    }
    Ok(())
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
