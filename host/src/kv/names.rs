//! Name lookup for guests: they learn the addresses of what they were granted, as they were when the instance was opened, and
//! nothing else. No query of theirs leaves the host.

use std::net::IpAddr;

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress};
use wasmtime_wasi::p2::{DynPollable, Network, Pollable, subscribe};

use super::sandbox::{Refused, Sandbox};

/// The interface, in the version that `wasmtime-wasi` puts into a linker: one of the same name takes its place.
const INTERFACE: &str = "wasi:sockets/ip-name-lookup@0.2.12";

/// The addresses that a guest has not fetched yet.
struct Answers(std::vec::IntoIter<IpAddr>);

impl Pollable for Answers {
    fn ready<'a, 'b>(&'a mut self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(std::future::ready(()))
    }
}

/// Puts the interface into `linker`, in place of the one that asks the system's resolver.
pub(super) fn add_to_linker(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(INTERFACE)?;
    interface.resource("resolve-address-stream", ResourceType::host::<Answers>(), |mut store, handle| {
        store.data_mut().table().delete(Resource::<Answers>::new_own(handle))?;
        Ok(())
    })?;
    interface.func_wrap("resolve-addresses", resolve)?;
    interface.func_wrap(
        "[method]resolve-address-stream.resolve-next-address",
        |mut store: StoreContextMut<'_, Sandbox>, (answers,): (Resource<Answers>,)| {
            let next = store.data_mut().table().get_mut(&answers)?.0.next();
            Ok((Ok::<_, ErrorCode>(next.map(IpAddress::from)),))
        },
    )?;
    interface.func_wrap(
        "[method]resolve-address-stream.subscribe",
        |mut store: StoreContextMut<'_, Sandbox>,
         (answers,): (Resource<Answers>,)|
         -> wasmtime::Result<(Resource<DynPollable>,)> { Ok((subscribe(store.data_mut().table(), answers)?,)) },
    )?;
    Ok(())
}

type Resolved = (Result<Resource<Answers>, ErrorCode>,);

fn resolve(
    mut store: StoreContextMut<'_, Sandbox>,
    (network, name): (Resource<Network>, String),
) -> wasmtime::Result<Resolved> {
    let sandbox = store.data_mut();
    // The handle is the guest's right to ask: it has to be one.
    sandbox.table().get(&network)?;
    let found = match name.parse::<IpAddr>() {
        Ok(address) => Some(vec![address]),
        Err(_) => sandbox.pins().resolve(&name).map(<[IpAddr]>::to_vec),
    };
    let Some(addresses) = found else {
        sandbox.refused(Refused::Name, format_args!("to look up {name:?}"));
        return Ok((Err(ErrorCode::NameUnresolvable),));
    };
    Ok((Ok(sandbox.table().push(Answers(addresses.into_iter()))?),))
}
