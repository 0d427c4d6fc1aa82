//! The network, by addresses like `127.0.0.1:80` and `[::1]:80`.

use std::net::SocketAddr;

use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
};
use wasip2::sockets::tcp::TcpSocket;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;
use wasip2::sockets::udp_create_socket::create_udp_socket;

use super::Outcome;

fn code(error: ErrorCode) -> &'static str {
    error.name()
}

fn parsed(address: &str) -> Result<(IpAddressFamily, IpSocketAddress), &'static str> {
    match address.parse().map_err(|_| "no address")? {
        SocketAddr::V4(v4) => {
            let [a, b, c, d] = v4.ip().octets();
            let address = Ipv4SocketAddress { port: v4.port(), address: (a, b, c, d) };
            Ok((IpAddressFamily::Ipv4, IpSocketAddress::Ipv4(address)))
        }
        SocketAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h] = v6.ip().segments();
            let (flow_info, scope_id) = (v6.flowinfo(), v6.scope_id());
            let address = Ipv6SocketAddress { port: v6.port(), flow_info, address: (a, b, c, d, e, f, g, h), scope_id };
            Ok((IpAddressFamily::Ipv6, IpSocketAddress::Ipv6(address)))
        }
    }
}

/// Asks for the end of what was started until there is one.
fn finish<T>(socket: &TcpSocket, mut end: impl FnMut() -> Result<T, ErrorCode>) -> Result<T, &'static str> {
    loop {
        match end() {
            Err(ErrorCode::WouldBlock) => socket.subscribe().block(),
            other => return other.map_err(code),
        }
    }
}

pub(super) fn connect(address: &str) -> Outcome {
    let (family, address) = parsed(address)?;
    let socket = create_tcp_socket(family).map_err(code)?;
    socket.start_connect(&instance_network(), address).map_err(code)?;
    let streams = finish(&socket, || socket.finish_connect())?;
    drop(streams);
    Ok("connected".to_owned())
}

pub(super) fn bind(address: &str) -> Result<TcpSocket, &'static str> {
    let (family, address) = parsed(address)?;
    let socket = create_tcp_socket(family).map_err(code)?;
    socket.start_bind(&instance_network(), address).map_err(code)?;
    finish(&socket, || socket.finish_bind())?;
    Ok(socket)
}

pub(super) fn listen(address: &str) -> Outcome {
    let socket = bind(address)?;
    socket.start_listen().map_err(code)?;
    finish(&socket, || socket.finish_listen())?;
    Ok("listening".to_owned())
}

pub(super) fn udp(family: &str) -> Outcome {
    let family = if family == "v6" { IpAddressFamily::Ipv6 } else { IpAddressFamily::Ipv4 };
    create_udp_socket(family).map(|_| "a socket".to_owned()).map_err(code)
}

pub(super) fn look_up(name: &str) -> Outcome {
    let answers = resolve_addresses(&instance_network(), name).map_err(code)?;
    let mut found = Vec::new();
    loop {
        match answers.resolve_next_address() {
            Ok(Some(IpAddress::Ipv4((a, b, c, d)))) => found.push(format!("{a}.{b}.{c}.{d}")),
            Ok(Some(IpAddress::Ipv6((a, b, c, d, e, f, g, h)))) => {
                found.push(std::net::Ipv6Addr::new(a, b, c, d, e, f, g, h).to_string());
            }
            Ok(None) => return Ok(found.join(",")),
            Err(ErrorCode::WouldBlock) => answers.subscribe().block(),
            Err(error) => return Err(code(error)),
        }
    }
}
