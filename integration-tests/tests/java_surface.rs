//! The pages that map the Java client to ours leave nothing out: each public method of the Java classes, as the
//! installed jars have them, is named there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use integration_tests::Failure;
use integration_tests::real::Version;
use integration_tests::scenario::report_skip;

/// The classes whose methods users call, and the pages that say where each went.
const PAGES: &[(&str, &[&str])] = &[
    (
        "java_producer.md",
        &[
            "org.apache.rocketmq.client.producer.DefaultMQProducer",
            "org.apache.rocketmq.client.producer.TransactionMQProducer",
            "org.apache.rocketmq.client.ClientConfig",
        ],
    ),
    (
        "java_consumer.md",
        &[
            "org.apache.rocketmq.client.consumer.DefaultLitePullConsumer",
            "org.apache.rocketmq.client.consumer.DefaultMQPullConsumer",
            "org.apache.rocketmq.client.consumer.MQPullConsumerScheduleService",
        ],
    ),
    (
        "java_admin.md",
        &["org.apache.rocketmq.tools.admin.DefaultMQAdminExt"],
    ),
];

/// What every Java object has, or what is public for the classes beside it only: nothing that a user calls.
const NOT_FOR_USERS: &[&str] = &[
    "acquireBackPressureForAsyncSendNumLock",
    "acquireBackPressureForAsyncSendSizeLock",
    "releaseBackPressureForAsyncSendNumLock",
    "releaseBackPressureForAsyncSendSizeLock",
    "setBackPressureForAsyncSendNumInsideAdjust",
    "setBackPressureForAsyncSendSizeInsideAdjust",
    "buildMQClientId",
    "changeInstanceNameToPID",
    "cloneClientConfig",
    "equals",
    "hashCode",
    "initProduceAccumulator",
    "queueWithNamespace",
    "queuesWithNamespace",
    "resetClientConfig",
    "toString",
    "withNamespace",
    "withoutNamespace",
];

#[test]
fn every_method_of_the_java_client_is_named_in_the_pages() -> Result<(), Failure> {
    let jars = match Version::V5.jars() {
        Ok(jars) => jars,
        Err(error) => {
            report_skip(&error.to_string());
            return Ok(());
        }
    };
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rocketmq-client/src/docs");
    let mut missing = Vec::new();
    for (page, classes) in PAGES {
        let text = fs::read_to_string(docs.join(page))?;
        let named: BTreeSet<_> = text
            .split(|character: char| !character.is_ascii_alphanumeric())
            .collect();
        for class in *classes {
            let methods = methods_of(class, &jars)?;
            assert!(methods.len() > 5, "{class} has methods: {methods:?}");
            let absent = methods.iter().filter(|method| !is_named(method, &named));
            missing.extend(absent.map(|method| format!("{page}: {class}.{method}")));
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    Ok(())
}

/// A setter may also be named by its property: `setVipChannelEnabled` as `vipChannelEnabled`.
fn is_named(method: &str, named: &BTreeSet<&str>) -> bool {
    let property = method.strip_prefix("set").map(|rest| {
        let (first, others) = rest.split_at(1.min(rest.len()));
        first.to_lowercase() + others
    });
    named.contains(method) || property.is_some_and(|property| named.contains(&*property))
}

/// The names of the public methods that `javap` lists, readers of settings left out.
fn methods_of(class: &str, jars: &Path) -> Result<BTreeSet<String>, Failure> {
    let output = Command::new("javap")
        .arg("-cp")
        .arg(jars.join("*"))
        .args(["-public", class])
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("javap does not know {class}: {said}").into());
    }
    let listed = String::from_utf8(output.stdout)?;
    let names = listed.lines().filter_map(|line| {
        let (before, _) = line.split_once('(')?;
        let name = before.rsplit(' ').next()?;
        // A constructor bears the name of its class, with the package.
        (!name.contains('.')).then_some(name)
    });
    let reads = |name: &str, prefix: &str| {
        let rest = name.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_uppercase()))
            && !class.ends_with("AdminExt")
    };
    let wanted =
        names.filter(|name| !NOT_FOR_USERS.contains(name) && !reads(name, "get") && !reads(name, "is"));
    Ok(wanted.map(str::to_owned).collect())
}
