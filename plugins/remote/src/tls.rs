//! TLS, inside the sandbox: what the host sees of a connection is encrypted already.

use std::io::{self, Read, Write};
use std::sync::Arc;

use memcell_plugin::{Error, Result, Settings};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::address::Address;
use crate::settings::secret;
use crate::socket::Socket;

/// A connection that is encrypted.
pub(crate) type TlsStream = StreamOwned<ClientConnection, Gathering>;

/// A stream that sends nothing before it is flushed: a record of TLS is smaller than what one write can take.
pub(crate) struct Gathering {
    pub(crate) socket: Socket,
    gathered: Vec<u8>,
}

impl Read for Gathering {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.read(buffer)
    }
}

impl Write for Gathering {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let sent = self.socket.write_all(&self.gathered);
        self.gathered.clear();
        sent
    }
}

/// How connections are encrypted, and whom to trust.
#[derive(Clone)]
pub(crate) struct Tls {
    client: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

impl Tls {
    /// The settings that begin with `tls`; `None` if connections aren't encrypted.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], which names the setting.
    pub(crate) fn read(settings: &mut Settings, environment: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let wanted = settings.boolean("tls")?.unwrap_or(false);
        let authorities = settings.string("tls_ca");
        let server_name = settings.string("tls_server_name");
        let certificate = settings.string("tls_cert");
        let key = secret(settings, "tls_key", "tls_key_env", environment)?;
        if !wanted {
            let given = [
                ("tls_ca", &authorities),
                ("tls_server_name", &server_name),
                ("tls_cert", &certificate),
                ("tls_key", &key),
            ];
            return match given.iter().find(|(_, value)| value.is_some()) {
                Some((name, _)) => refuse(format!("the setting {name:?} needs \"tls\" to be true")),
                None => Ok(None),
            };
        }
        let server_name = server_name.map(|name| match ServerName::try_from(name.clone()) {
            Ok(name) => Ok(name),
            Err(_) => refuse(format!("the setting \"tls_server_name\" is {name:?}, which is no name of a server")),
        });
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::other(format!("TLS: {error}")))?
            .with_root_certificates(trusted(authorities.as_deref())?);
        let client = match (certificate, key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => builder
                .with_client_auth_cert(certificates("tls_cert", &certificate)?, private_key(&key)?)
                .map_err(|error| {
                    Error::invalid_argument(format!("the settings \"tls_cert\" and \"tls_key_env\" don't fit: {error}"))
                })?,
            _ => return refuse("\"tls_cert\" and \"tls_key_env\" (or \"tls_key\") need each other".into()),
        };
        Ok(Some(Self { client: Arc::new(client), server_name: server_name.transpose()? }))
    }

    /// Agrees on keys, and checks that the server is who it should be.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if it isn't, or doesn't speak TLS; others as the connection itself.
    pub(crate) fn handshake(&self, address: &Address, socket: Socket) -> io::Result<TlsStream> {
        let invalid = |error: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(address.host.to_string()).map_err(|error| invalid(&error))?,
        };
        let mut connection = ClientConnection::new(Arc::clone(&self.client), name).map_err(|error| invalid(&error))?;
        let mut stream = Gathering { socket, gathered: Vec::new() };
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(connection, stream))
    }
}

fn refuse<T>(text: String) -> Result<T> {
    Err(Error::InvalidArgument(text))
}

/// The given authorities, or those that browsers trust.
fn trusted(authorities: Option<&str>) -> Result<RootCertStore> {
    let Some(authorities) = authorities else {
        return Ok(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect());
    };
    let mut store = RootCertStore::empty();
    for certificate in certificates("tls_ca", authorities)? {
        store.add(certificate).map_err(|error| {
            Error::invalid_argument(format!("the setting \"tls_ca\" has a certificate that can't be used: {error}"))
        })?;
    }
    Ok(store)
}

fn certificates(name: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let wrong = || Error::invalid_argument(format!("the setting {name:?} has to be certificates in PEM"));
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    certificates.ok().filter(|certificates| !certificates.is_empty()).ok_or_else(wrong)
}

fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| {
        Error::invalid_argument("what \"tls_key_env\" (or \"tls_key\") gives has to be a private key in PEM")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(pairs: &[(&str, &str)], mentions: &str) {
        let pairs = pairs.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        match Tls::read(&mut Settings::new(pairs).unwrap(), |_| Some("no key".into())) {
            Err(Error::InvalidArgument(text)) => assert!(text.contains(mentions), "{text}"),
            other => panic!("{mentions}: {}", other.is_ok()),
        }
    }

    #[test]
    fn without_tls_nothing_is_encrypted_and_nothing_ignored() {
        let read = |pairs: Vec<(String, String)>| Tls::read(&mut Settings::new(pairs).unwrap(), |_| None);
        assert!(read(vec![]).unwrap().is_none());
        assert!(read(vec![("tls".into(), "true".into())]).unwrap().is_some());
        refused(&[("tls_ca", "x")], "\"tls_ca\" needs \"tls\"");
        refused(&[("tls", "false"), ("tls_server_name", "x")], "\"tls_server_name\" needs");
    }

    #[test]
    fn what_is_wrong_is_named() {
        refused(&[("tls", "maybe")], "\"tls\"");
        refused(&[("tls", "true"), ("tls_ca", "no certificate")], "\"tls_ca\"");
        refused(&[("tls", "true"), ("tls_server_name", "a b")], "\"tls_server_name\"");
        refused(&[("tls", "true"), ("tls_cert", "x")], "need each other");
        refused(&[("tls", "true"), ("tls_cert", "x"), ("tls_key_env", "KEY")], "\"tls_cert\"");
        refused(&[("tls", "true"), ("tls_key", "x"), ("tls_key_env", "KEY")], "only one of");
    }
}
