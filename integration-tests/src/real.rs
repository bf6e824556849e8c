//! Real Apache RocketMQ name servers and brokers as child processes.
//!
//! The jars come from `integration-tests/peers/install`. Every process binds loopback, gets ports and a home of its
//! own, and ends with the test process at the latest. The calls block for seconds: from asynchronous code, the
//! methods of [`Server`](crate::target::Server) move them to a thread of their own.

mod ports;
mod process;
mod scratch;
mod settings;

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::json;

pub(crate) use scratch::Scratch;

use crate::{Failure, peers_directory, wire};
use ports::{BrokerPorts, PortBlock};
use process::Process;

/// Generous: two cores may be busy with everything else.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Small, for a machine that is shared with tests.
const HEAP: &[&str] = &["-Xms256m", "-Xmx768m", "-XX:MaxDirectMemorySize=512m"];
const STOP_LIMIT: Duration = Duration::from_secs(60);

const GET_BROKER_CLUSTER_INFO: i32 = 106;
const GET_BROKER_CONFIG: i32 = 26;
const UPDATE_AND_CREATE_TOPIC: i32 = 17;
const SEND_MESSAGE_V2: i32 = 310;
const PULL_MESSAGE: i32 = 11;
/// FLUSH_DISK_TIMEOUT, SLAVE_NOT_AVAILABLE, FLUSH_SLAVE_TIMEOUT.
const STORED_BUT: [i64; 3] = [10, 11, 12];
const PROBE: &str = "fixture-probe";

/// A server release that the scenarios run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 4.9.7, the newest 4.9 whose servers are published as jars.
    V4,
    /// 5.5.0.
    V5,
}

impl Version {
    /// As in the names of jars and images.
    #[must_use]
    pub fn number(self) -> &'static str {
        match self {
            Self::V4 => "4.9.7",
            Self::V5 => "5.5.0",
        }
    }

    /// The directory of the jars of this version's servers and tools.
    ///
    /// # Errors
    /// When they are not installed.
    pub fn jars(self) -> Result<PathBuf, Failure> {
        let jars = peers_directory().join(format!("server-{}", self.number()));
        if jars.is_dir() {
            Ok(jars)
        } else {
            Err(format!(
                "no jars in {}: run `bash integration-tests/peers/install`",
                jars.display()
            )
            .into())
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RocketMQ {}", self.number())
    }
}

/// The command line of a Java program of a release that works on a cluster and then ends: its main class and arguments.
pub(crate) fn tool_command(version: Version, home: &Path, main: &[&str]) -> Result<Vec<String>, Failure> {
    settings::write_home(home)?;
    let heap = ["-Xms32m", "-Xmx256m"];
    Ok(settings::java(version, &version.jars()?, home, &heap, main))
}

/// One name server and its brokers.
pub struct RealCluster {
    version: Version,
    _name_server: Process,
    brokers: Vec<Broker>,
    ports: PortBlock,
    // Last: the processes end before their directories go.
    scratch: Scratch,
}

struct Broker {
    command: Vec<String>,
    settings: BTreeMap<String, String>,
    home: PathBuf,
    ports: BrokerPorts,
    /// Whether it serves nobody but those who know more than this fixture.
    guarded: bool,
    process: Mutex<Option<Process>>,
}

/// What makes servers secure.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// Files below a broker's home: names and text.
    pub files: Vec<(String, String)>,
    /// Further flags of the name server's JVM.
    pub name_server_jvm: Vec<String>,
    /// Further flags of the brokers' JVMs.
    pub broker_jvm: Vec<String>,
    /// Whether brokers refuse plain requests without a signature.
    pub is_closed: bool,
}

impl Guard {
    fn jvm<'a>(flags: &[&'a str], further: &'a [String]) -> Vec<&'a str> {
        flags
            .iter()
            .copied()
            .chain(further.iter().map(String::as_str))
            .collect()
    }
}

/// What is started, and how.
struct Start {
    version: Version,
    brokers: u16,
    /// Whether the second broker is the slave of the first.
    replicated: bool,
    /// Flags of the brokers' JVMs.
    jvm: &'static [&'static str],
    guard: Guard,
}

impl Start {
    fn of(version: Version, brokers: u16) -> Self {
        Self {
            version,
            brokers,
            replicated: false,
            jvm: HEAP,
            guard: Guard::default(),
        }
    }
}

impl RealCluster {
    /// Starts a name server and `brokers` masters, named `broker-0` and on, with `wishes` added to their settings.
    ///
    /// Returns when each broker is listed by the name server, runs with the settings it was given, and has stored
    /// and returned a probe message.
    ///
    /// # Errors
    /// When the jars are not installed, or a process ends or is not ready in two minutes; with the end of its log.
    pub fn start(version: Version, brokers: u16, wishes: &BTreeMap<String, String>) -> Result<Self, Failure> {
        Self::start_with(&Start::of(version, brokers), wishes)
    }

    /// One broker that asks its clients who they are, or does not speak plain text: this fixture can talk to neither, so
    /// it counts as ready when the name server lists it.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_guarded(
        version: Version,
        wishes: &BTreeMap<String, String>,
        guard: &Guard,
    ) -> Result<Self, Failure> {
        let start = Start {
            guard: guard.clone(),
            ..Start::of(version, 1)
        };
        Self::start_with(&start, wishes)
    }

    /// One master and its slave, both named `broker-0`. Brokers 0 and 1 of the cluster are they, in this order. A slave
    /// takes no probe message, so it counts as ready when the name server lists it.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_replicated(version: Version, wishes: &BTreeMap<String, String>) -> Result<Self, Failure> {
        let mut wishes = wishes.clone();
        wishes.insert("slaveReadEnable".to_owned(), "true".to_owned());
        let start = Start {
            replicated: true,
            ..Start::of(version, 2)
        };
        Self::start_with(&start, &wishes)
    }

    /// One broker as it would run in production: the compiler and collector that the JVM chooses, 2 GiB of heap.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_for_measuring(version: Version) -> Result<Self, Failure> {
        let start = Start {
            jvm: settings::MEASURED,
            ..Start::of(version, 1)
        };
        Self::start_with(&start, &BTreeMap::new())
    }

    fn start_with(start: &Start, wishes: &BTreeMap<String, String>) -> Result<Self, Failure> {
        let Start {
            version,
            brokers,
            replicated,
            jvm,
            ref guard,
        } = *start;
        if !(1..=PortBlock::BROKERS).contains(&brokers) {
            return Err(format!("{brokers} brokers; a cluster has 1 to {}", PortBlock::BROKERS).into());
        }
        let jars = version.jars()?;
        let ports = PortBlock::take()?;
        let scratch = Scratch::new(version.number())?;

        let home = scratch.path().join("name-server");
        settings::write_home(&home)?;
        let file = home.join("namesrv.properties");
        settings::write(&file, &settings::name_server(version, ports.name_server()))?;
        let main = [
            "org.apache.rocketmq.namesrv.NamesrvStartup",
            "-c",
            &file.display().to_string(),
        ];
        let jvm_of_name_server = Guard::jvm(&["-Xms64m", "-Xmx256m"], &guard.name_server_jvm);
        let command = settings::java(version, &jars, &home, &jvm_of_name_server, &main);
        let mut name_server = Process::spawn("name server", &command, &home, &home.join("log"))?;
        name_server.wait_until("\"boot success\"", START_LIMIT, |log| {
            Ok(std::fs::read_to_string(log)?.contains("boot success"))
        })?;

        let mut cluster = Self {
            version,
            _name_server: name_server,
            brokers: Vec::new(),
            ports,
            scratch,
        };
        for index in 0..brokers {
            let is_slave = replicated && index > 0;
            let name = format!("broker-{}", if is_slave { 0 } else { index });
            let home = cluster.scratch.path().join(format!("broker-{index}"));
            settings::write_home(&home)?;
            for (name, text) in &guard.files {
                std::fs::write(home.join(name), text)?;
            }
            let file = home.join("broker.conf");
            let ports = cluster.ports.broker(index);
            let store = home.join("store");
            let mut settings =
                settings::broker(version, &name, cluster.ports.name_server(), ports, &store, wishes);
            if replicated {
                let (id, role) = if is_slave {
                    ("1", "SLAVE")
                } else {
                    ("0", "ASYNC_MASTER")
                };
                settings.insert("brokerId".to_owned(), id.to_owned());
                settings.insert("brokerRole".to_owned(), role.to_owned());
            }
            settings::write(&file, &settings)?;
            let main = [
                "org.apache.rocketmq.broker.BrokerStartup",
                "-c",
                &file.display().to_string(),
            ];
            let jvm = Guard::jvm(jvm, &guard.broker_jvm);
            let command = settings::java(version, &jars, &home, &jvm, &main);
            cluster.brokers.push(Broker {
                command,
                settings,
                home,
                ports,
                guarded: guard.is_closed || is_slave,
                process: Mutex::new(None),
            });
        }
        for index in 0..cluster.brokers.len() {
            cluster.launch(index)?;
        }
        for index in 0..cluster.brokers.len() {
            cluster.await_ready(index)?;
        }
        Ok(cluster)
    }

    /// `host:port` of the name server.
    #[must_use]
    pub fn name_server(&self) -> String {
        loopback(self.ports.name_server()).to_string()
    }

    /// Address of a broker.
    ///
    /// # Errors
    /// When there is no broker of this index.
    pub fn broker_address(&self, index: usize) -> Result<SocketAddr, Failure> {
        Ok(loopback(self.broker(index)?.ports.listen))
    }

    /// SIGKILL: a crash of the process. What it had mapped reaches the disk all the same.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self, index: usize) -> Result<(), Failure> {
        self.end(index, "KILL")
    }

    /// SIGTERM: the broker flushes, unregisters and exits, which takes it seconds.
    ///
    /// # Errors
    /// When it does not run, or is still there after a minute.
    pub fn stop(&self, index: usize) -> Result<(), Failure> {
        self.end(index, "TERM")
    }

    /// Starts a broker that was stopped or killed, on its old store and port, and waits until it is ready.
    ///
    /// # Errors
    /// When it runs, or does not get ready.
    pub fn restart(&self, index: usize) -> Result<(), Failure> {
        self.launch(index)?;
        self.await_ready(index)
    }

    /// SIGSTOP: connections stay open and new ones succeed, but nothing is answered.
    ///
    /// # Errors
    /// When the broker does not run.
    pub fn freeze(&self, index: usize) -> Result<(), Failure> {
        self.with_process(index, |process| process.signal("STOP"))
    }

    /// Lets a frozen broker go on.
    ///
    /// # Errors
    /// When the broker does not run.
    pub fn thaw(&self, index: usize) -> Result<(), Failure> {
        self.with_process(index, |process| process.signal("CONT"))
    }

    /// Lets every broker that is frozen go on, and starts every one that does not run.
    ///
    /// # Errors
    /// When one does not get ready.
    pub fn mend(&self) -> Result<(), Failure> {
        for index in 0..self.brokers.len() {
            if lock(&self.broker(index)?.process).is_some() {
                self.thaw(index)?;
                self.await_ready(index)?;
            } else {
                self.restart(index)?;
            }
        }
        Ok(())
    }

    fn broker(&self, index: usize) -> Result<&Broker, Failure> {
        self.brokers
            .get(index)
            .ok_or_else(|| format!("no broker {index} in this cluster").into())
    }

    fn with_process<T>(
        &self,
        index: usize,
        action: impl FnOnce(&mut Process) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        match lock(&self.broker(index)?.process).as_mut() {
            Some(process) => action(process),
            None => Err(format!("broker {index} of {} does not run", self.version).into()),
        }
    }

    fn end(&self, index: usize, signal: &str) -> Result<(), Failure> {
        self.with_process(index, |process| {
            process.signal(signal)?;
            process.wait(STOP_LIMIT)
        })?;
        lock(&self.broker(index)?.process).take();
        Ok(())
    }

    fn launch(&self, index: usize) -> Result<(), Failure> {
        let broker = self.broker(index)?;
        let mut process = lock(&broker.process);
        if process.is_some() {
            return Err(format!("broker {index} of {} runs already", self.version).into());
        }
        let name = format!("broker {index} of {}", self.version);
        *process = Some(Process::spawn(
            &name,
            &broker.command,
            &broker.home,
            &broker.home.join("log"),
        )?);
        Ok(())
    }

    fn await_ready(&self, index: usize) -> Result<(), Failure> {
        let broker = self.broker(index)?;
        let address = loopback(broker.ports.listen);
        let name_server = loopback(self.ports.name_server());
        self.with_process(index, |process| {
            process.wait_until("\"boot success\"", START_LIMIT, |log| {
                Ok(std::fs::read_to_string(log)?.contains("boot success"))
            })?;
            process.wait_until("its name in the name server", START_LIMIT, |_| {
                let listed =
                    wire::request(name_server, GET_BROKER_CLUSTER_INFO, &json!({}), b"")?.success()?;
                Ok(String::from_utf8_lossy(&listed.body).contains(&format!("{address}\"")))
            })?;
            if broker.guarded {
                return Ok(());
            }
            process.wait_until("a probe message", START_LIMIT, |_| probe(address))?;
            let answer = wire::request(address, GET_BROKER_CONFIG, &json!({}), b"")?.success()?;
            settings::verify(&broker.settings, &String::from_utf8_lossy(&answer.body))
        })
    }
}

impl fmt::Debug for RealCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealCluster")
            .field("version", &self.version)
            .field("name_server", &self.name_server())
            .field("brokers", &self.brokers.len())
            .finish_non_exhaustive()
    }
}

impl Drop for RealCluster {
    fn drop(&mut self) {
        // Brokers before the name server, else they spend their last moments complaining.
        self.brokers.clear();
    }
}

/// Stores a message and reads it back.
fn probe(broker: SocketAddr) -> Result<bool, Failure> {
    // Sends may not be allowed to create it.
    let topic = json!({
        "topic": PROBE, "defaultTopic": "TBW102", "readQueueNums": "1", "writeQueueNums": "1", "perm": "6",
        "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
    });
    wire::request(broker, UPDATE_AND_CREATE_TOPIC, &topic, b"")?.success()?;
    let fields = json!({
        "a": PROBE, "b": PROBE, "c": "TBW102", "d": "1", "e": "0", "f": "0", "g": "0", "h": "0", "j": "0",
        "k": "false", "m": "false",
    });
    let sent = wire::request(broker, SEND_MESSAGE_V2, &fields, b"probe")?;
    // Stored, but not as safely as configured, is what some brokers are set up to say.
    let sent = if STORED_BUT.contains(&sent.code) {
        sent
    } else {
        sent.success()?
    };
    let offset = sent
        .field("queueOffset")
        .ok_or("no queueOffset in the answer to a send")?;
    let fields = json!({
        "consumerGroup": PROBE, "topic": PROBE, "queueId": "0", "queueOffset": offset, "maxMsgNums": "1",
        "sysFlag": "4", "commitOffset": "0", "suspendTimeoutMillis": "0", "subscription": "*", "subVersion": "0",
    });
    Ok(wire::request(broker, PULL_MESSAGE, &fields, b"")?.code == 0)
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A panic while a lock was held is reported by its own test; the others may go on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
