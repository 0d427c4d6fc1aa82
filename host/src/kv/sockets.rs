//! Sockets for guests: without a destination to connect to there are none, and what is asked for in vain is told.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily};
use wasmtime_wasi::p2::bindings::sockets::{tcp_create_socket, udp_create_socket};
use wasmtime_wasi::p2::{SocketResult, TcpSocket, UdpSocket};
use wasmtime_wasi::sockets::WasiSocketsView;

use super::sandbox::{Refused, Sandbox};

const TCP: &str = "wasi:sockets/tcp-create-socket@0.2.12";
const UDP: &str = "wasi:sockets/udp-create-socket@0.2.12";

/// Puts the functions that make sockets into `linker`, in place of those that refuse silently.
pub(super) fn add_to_linker(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    linker.instance(TCP)?.func_wrap(
        "create-tcp-socket",
        |mut store: StoreContextMut<'_, Sandbox>, (family,): (IpAddressFamily,)| {
            let made: SocketResult<Resource<TcpSocket>> =
                tcp_create_socket::Host::create_tcp_socket(&mut store.data_mut().sockets(), family);
            told(store.data(), "to make a TCP socket", made)
        },
    )?;
    linker.instance(UDP)?.func_wrap_async(
        "create-udp-socket",
        |mut store: StoreContextMut<'_, Sandbox>, (family,): (IpAddressFamily,)| {
            Box::new(async move {
                let made: SocketResult<Resource<UdpSocket>> =
                    udp_create_socket::Host::create_udp_socket(&mut store.data_mut().sockets(), family).await;
                told(store.data(), "to make a UDP socket", made)
            })
        },
    )
}

fn told<T>(sandbox: &Sandbox, wanted: &str, made: SocketResult<T>) -> wasmtime::Result<(Result<T, ErrorCode>,)> {
    match made {
        Ok(socket) => Ok((Ok(socket),)),
        Err(error) => {
            let code = error.downcast()?;
            if code == ErrorCode::AccessDenied {
                sandbox.refused(Refused::Socket, format_args!("{wanted}"));
            }
            Ok((Err(code),))
        }
    }
}
