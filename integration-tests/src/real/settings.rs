//! What the Java processes are told: JVM flags, property files, log configuration.

use std::{collections::BTreeMap, fs, path::Path};

use super::{Version, ports::BrokerPorts};
use crate::Failure;

/// Without the opened packages a JDK 17 starts the servers and then fails to stop them or to delete files.
const JVM_FLAGS: &[&str] = &[
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED",
    "--add-opens=java.base/jdk.internal.ref=ALL-UNNAMED",
    "--add-exports=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "-XX:+IgnoreUnrecognizedVMOptions",
    // Quicker to boot. Never for measuring.
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Drocketmq.broker.diskSpaceWarningLevelRatio=0.98",
    "-Drocketmq.broker.diskSpaceCleanForciblyRatio=0.97",
];

/// What takes back the flags that only boot quicker; later flags win.
pub(super) const MEASURED: &[&str] = &[
    "-XX:-UseSerialGC",
    "-XX:TieredStopAtLevel=4",
    "-Xms2g",
    "-Xmx2g",
    "-XX:MaxDirectMemorySize=1g",
];

/// 4.9 dies without these files, 5.x logs into another component's when it is not pointed at one.
const LOGBACK: &str = r#"<configuration>
  <appender name="console" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{HH:mm:ss.SSS} %-5level %logger{0} %msg%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="console"/></root>
</configuration>
"#;

pub(super) const CLUSTER: &str = "DefaultCluster";

/// Writes the files that a process of this home needs, whatever it is.
pub(super) fn write_home(home: &Path) -> Result<(), Failure> {
    let conf = home.join("conf");
    fs::create_dir_all(&conf)?;
    for name in ["namesrv", "broker", "tools"] {
        fs::write(conf.join(format!("logback_{name}.xml")), LOGBACK)?;
    }
    Ok(())
}

/// The command line of one server.
pub(super) fn java(version: Version, jars: &Path, home: &Path, heap: &[&str], main: &[&str]) -> Vec<String> {
    let mut command = vec!["java".to_owned()];
    command.extend(JVM_FLAGS.iter().chain(heap).map(|&flag| flag.to_owned()));
    // Everything not configured hangs off the user's home: store, offsets, logs.
    command.push(format!("-Duser.home={}", home.display()));
    command.push(format!("-Drocketmq.home.dir={}", home.display()));
    if version == Version::V5 {
        let file = home.join("conf").join("logback_broker.xml");
        command.push(format!("-Drmq.logback.configurationFile={}", file.display()));
    }
    command.extend(["-cp".to_owned(), format!("{}/*", jars.display())]);
    command.extend(main.iter().map(|&argument| argument.to_owned()));
    command
}

/// A property file.
pub(super) fn write(path: &Path, settings: &BTreeMap<String, String>) -> Result<(), Failure> {
    let lines: String = settings
        .iter()
        .map(|(key, value)| format!("{key}={value}\n"))
        .collect();
    Ok(fs::write(path, lines)?)
}

pub(super) fn name_server(version: Version, port: u16) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::from([("listenPort".to_owned(), port.to_string())]);
    if version == Version::V5 {
        settings.insert("bindAddress".to_owned(), "127.0.0.1".to_owned());
    }
    settings
}

/// Settings of a broker that shares a small machine with tests, then those of the caller.
pub(super) fn broker(
    version: Version,
    name: &str,
    name_server: u16,
    ports: BrokerPorts,
    store: &Path,
    wishes: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut settings: BTreeMap<String, String> = [
        ("brokerClusterName", CLUSTER.to_owned()),
        ("brokerName", name.to_owned()),
        ("brokerId", "0".to_owned()),
        ("namesrvAddr", format!("127.0.0.1:{name_server}")),
        ("brokerIP1", "127.0.0.1".to_owned()),
        ("brokerIP2", "127.0.0.1".to_owned()),
        ("listenPort", ports.listen.to_string()),
        ("haListenPort", ports.replication.to_string()),
        ("storePathRootDir", store.display().to_string()),
        (
            "storePathCommitLog",
            store.join("commitlog").display().to_string(),
        ),
        ("mappedFileSizeCommitLog", (128 << 20).to_string()),
        ("maxHashSlotNum", "40000".to_owned()),
        ("maxIndexNum", "160000".to_owned()),
        ("enablePropertyFilter", "true".to_owned()),
        ("traceTopicEnable", "true".to_owned()),
        // 200 ms by default, which two busy cores exceed all the time: SYSTEM_BUSY for no fault of the client.
        ("waitTimeMillsInSendQueue", "5000".to_owned()),
        ("diskMaxUsedSpaceRatio", "95".to_owned()),
        // 6 s and up to a minute by default, which tests would have to wait.
        ("transactionTimeOut", "1000".to_owned()),
        ("transactionCheckInterval", "1000".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    if version == Version::V5 {
        settings.insert("bindAddress".to_owned(), "127.0.0.1".to_owned());
        // What is done is noted every 3 s by default; questions that come more often ask again about it.
        settings.insert("transactionOpBatchInterval".to_owned(), "50".to_owned());
        settings.insert("recallMessageEnable".to_owned(), "true".to_owned());
        settings.insert("metricsPromExporterPort".to_owned(), ports.metrics.to_string());
    }
    settings.extend(wishes.clone());
    settings
}

/// Compares what a broker was told with what it says it does: it ignores a value that it cannot read without a word.
/// (And a key that it does not know, which it repeats nevertheless; so this does not find misspelt keys.)
pub(super) fn verify(asked: &BTreeMap<String, String>, effective: &str) -> Result<(), Failure> {
    let effective: BTreeMap<&str, &str> = effective
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    for (key, value) in asked {
        match effective.get(key.as_str()) {
            Some(found) if found == value => {}
            Some(found) => return Err(format!("the broker runs with {key}={found}, not {value}").into()),
            None => return Err(format!("the broker has no setting {key}").into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_a_broker_ignored_is_found() {
        let asked = BTreeMap::from([("listenPort".to_owned(), "1".to_owned())]);
        assert!(verify(&asked, "a=b\nlistenPort=1\n").is_ok());
        assert!(
            verify(&asked, "listenPort=2\n")
                .unwrap_err()
                .to_string()
                .contains("listenPort=2")
        );
        assert!(
            verify(&asked, "listenport=1\n")
                .unwrap_err()
                .to_string()
                .contains("has no setting")
        );
    }
}
