//! Guests that want to talk to somebody they were not granted, or to be talked to; and that look around.

use anyhow::{Context, Result, ensure};
use memcell_host::config::{Destination, GrantsConfig};
use memcell_tests::host::hostile;
use tokio::net::TcpListener;

use crate::prober::Prober;
use crate::stage::{Stage, log_lines};

/// Two servers on loopback: one is granted, the other is there.
struct Servers {
    granted: TcpListener,
    other: TcpListener,
}

impl Servers {
    async fn start() -> Result<Self> {
        Ok(Self { granted: TcpListener::bind("127.0.0.1:0").await?, other: TcpListener::bind("127.0.0.1:0").await? })
    }

    fn port(&self) -> Result<u16> {
        Ok(self.granted.local_addr()?.port())
    }

    fn other_port(&self) -> Result<u16> {
        Ok(self.other.local_addr()?.port())
    }

    /// The granted server was connected to `times` times, the other one never.
    async fn were_met(self, times: usize) -> Result<()> {
        let wait = std::time::Duration::from_millis(100);
        for _ in 0..times {
            tokio::time::timeout(wait, self.granted.accept()).await.context("nobody came")??;
        }
        ensure!(tokio::time::timeout(wait, self.granted.accept()).await.is_err(), "one connection too many");
        ensure!(tokio::time::timeout(wait, self.other.accept()).await.is_err(), "somebody came");
        Ok(())
    }
}

fn connect(destinations: &[String]) -> Result<GrantsConfig> {
    let connect = destinations.iter().map(|text| Destination::parse(text).map_err(anyhow::Error::msg));
    Ok(GrantsConfig { connect: connect.collect::<Result<_>>()?, ..GrantsConfig::default() })
}

/// A test for each denial under the grant of `127.0.0.1:PORT`; the granted connection works before and after it.
macro_rules! denied {
    ($($name:ident: $probe:literal => $code:literal, $kind:expr;)*) => {
        $(
            #[tokio::test]
            async fn $name() -> Result<()> {
                let servers = Servers::start().await?;
                let (port, other) = (servers.port()?, servers.other_port()?);
                let prober = Prober::start(connect(&[format!("127.0.0.1:{port}")])?).await?;
                assert_eq!(prober.ask(&format!("connect 127.0.0.1:{port}")).await?, "done: connected");
                let probe = $probe.replace("OTHER", &other.to_string()).replace("PORT", &port.to_string());
                assert_eq!(prober.ask(&probe).await?, concat!("refused: ", $code), "{probe}");
                let kind: Option<&str> = $kind;
                if let Some(kind) = kind {
                    assert_eq!(prober.refusals(kind), 1, "{probe}");
                }
                assert_eq!(prober.ask(&format!("connect 127.0.0.1:{port}")).await?, "done: connected");
                servers.were_met(2).await
            }
        )*
    };
}

denied! {
    another_port: "connect 127.0.0.1:OTHER" => "access-denied", Some("connect");
    another_loopback_address: "connect 127.0.0.2:PORT" => "access-denied", Some("connect");
    loopback_of_ipv6: "connect [::1]:PORT" => "access-denied", Some("connect");
    // WASI itself has no place for these: they are refused before anybody is asked.
    the_same_address_mapped_to_ipv6: "connect [::ffff:127.0.0.1]:PORT" => "invalid-argument", None;
    the_same_address_compatible_with_ipv6: "connect [::127.0.0.1]:PORT" => "invalid-argument", None;
    the_unspecified_address: "connect 0.0.0.0:PORT" => "invalid-argument", None;
    broadcast: "connect 255.255.255.255:PORT" => "invalid-argument", None;
    cloud_metadata: "connect 169.254.169.254:80" => "access-denied", Some("connect");
    cloud_metadata_mapped_to_ipv6: "connect [::ffff:169.254.169.254]:80" => "invalid-argument", None;
    cloud_metadata_of_ipv6: "connect [fd00:ec2::254]:80" => "access-denied", Some("connect");
    link_local_ipv6: "connect [fe80::1]:PORT" => "access-denied", Some("connect");
    private_network: "connect 10.0.0.1:PORT" => "access-denied", Some("connect");
    udp_v4: "udp v4" => "access-denied", Some("socket");
    udp_v6: "udp v6" => "access-denied", Some("socket");
    binding_to_loopback: "bind 127.0.0.1:0" => "access-denied", Some("bind");
    binding_to_a_port: "bind 0.0.0.0:OTHER" => "access-denied", Some("bind");
    listening: "listen 0.0.0.0:0" => "access-denied", Some("bind");
    a_name_of_somebody_else: "lookup example.org" => "name-unresolvable", Some("name");
    a_name_of_the_same_host: "lookup localhost" => "name-unresolvable", Some("name");
}

#[tokio::test]
async fn without_a_grant_there_is_no_network() -> Result<()> {
    let servers = Servers::start().await?;
    let prober = Prober::start(GrantsConfig::default()).await?;
    let port = servers.port()?;
    for probe in [format!("connect 127.0.0.1:{port}"), "bind 0.0.0.0:0".into(), "listen 0.0.0.0:0".into()] {
        assert_eq!(prober.ask(&probe).await?, "refused: access-denied", "{probe}");
    }
    assert_eq!(prober.ask("udp v4").await?, "refused: access-denied");
    assert_eq!(prober.refusals("socket"), 4);
    assert_eq!(prober.ask("lookup localhost").await?, "refused: name-unresolvable");
    assert_eq!(prober.refusals("name"), 1);
    servers.were_met(0).await
}

#[tokio::test]
async fn a_granted_name_can_be_looked_up_and_connected_to() -> Result<()> {
    let servers = Servers::start().await?;
    let port = servers.port()?;
    let prober = Prober::start(connect(&[format!("localhost:{port}")])?).await?;
    for name in ["localhost", "LocalHost."] {
        let found = prober.ask(&format!("lookup {name}")).await?;
        assert!(found.strip_prefix("done: ").is_some_and(|found| found.contains("127.0.0.1")), "{name}: {found}");
    }
    assert_eq!(prober.ask(&format!("connect 127.0.0.1:{port}")).await?, "done: connected");
    let other = servers.other_port()?;
    assert_eq!(prober.ask(&format!("connect 127.0.0.1:{other}")).await?, "refused: access-denied");
    assert_eq!(prober.ask("lookup example.org").await?, "refused: name-unresolvable");
    // An address needs no looking up, and being told it again grants nothing.
    assert_eq!(prober.ask("lookup 169.254.169.254").await?, "done: 169.254.169.254");
    assert_eq!(prober.ask("connect 169.254.169.254:80").await?, "refused: access-denied");
    servers.were_met(1).await
}

#[tokio::test]
async fn only_granted_variables_are_there() -> Result<()> {
    let path = std::env::var("PATH")?;
    ensure!(std::env::var("HOME").is_ok(), "there must be another variable for the test to mean anything");
    let prober = Prober::start(GrantsConfig::default()).await?;
    assert_eq!(prober.ask("environment").await?, "done");
    assert_eq!(prober.ask("arguments").await?, "done");
    assert_eq!(prober.ask("stdin").await?, "refused: closed");
    let granted = GrantsConfig { environment: vec!["PATH".into()], ..GrantsConfig::default() };
    let prober = Prober::start(granted).await?;
    assert_eq!(prober.ask("environment").await?, format!("done: PATH={path}"));
    Ok(())
}

/// Within a whole host: the refusals are in its metrics and log, and nobody is disturbed.
#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_told_to_the_operator() -> Result<()> {
    let servers = Servers::start().await?;
    let mut config = hostile(&[])?;
    config.grants = connect(&[format!("127.0.0.1:{}", servers.port()?)])?;
    let stage = Stage::set(config).await?;
    stage.host.live().await?;
    let mongodb = stage.host.config.mongodb.redacted_uri();
    ensure!(mongodb.contains("127.0.0.1"), "MongoDB is where the guest could find it: {mongodb}");
    let port = mongodb.rsplit(':').next().and_then(|rest| rest.split('/').next()).context("no port")?;
    let probes = ["connect 169.254.169.254:80".to_owned(), format!("connect 127.0.0.1:{port}"), "udp v4".to_owned()];
    let probes: Vec<String> = probes.iter().map(|probe| format!("probe {probe}")).collect();
    let answers = stage.read_hostile(&probes).await?;
    ensure!(answers.iter().all(|answer| answer.as_deref() == Some("refused: access-denied")), "{answers:?}");
    ensure!(stage.figure("memcell_kv_refusals_total{backend=\"hostile\",kind=\"connect\"}").await? > 1.5);
    ensure!(stage.figure("memcell_kv_refusals_total{backend=\"hostile\",kind=\"socket\"}").await? > 0.5);
    let told = log_lines(&[
        "the plugin wanted what it was not granted",
        "TcpConnect 169.254.169.254:80",
        "backend=\"hostile\"",
    ]);
    ensure!(told.len() == 1, "{told:?}");
    stage.others_are_well().await?;
    let status = stage.status("hostile").await?;
    ensure!(status["state"] == "live" && status["restarts"] == 0, "{status}");
    servers.were_met(0).await?;
    stage.strike().await
}
