//! Message trace: what happened to a message, as Apache RocketMQ's own tools read it.

use integration_tests::{mqadmin::MqAdmin, scenario::TestResult, scenarios, target::Target};

scenarios![the_operators_tool_reads_the_cluster];

async fn the_operators_tool_reads_the_cluster(target: &Target) -> TestResult {
    let listed = MqAdmin::new(target.name_server())?
        .run("clusterList", &[])
        .await?;
    let broker = target.first_broker().await?.to_string();
    if listed.contains(&broker) {
        return Ok(());
    }
    Err(format!("{broker} is not in\n{listed}").into())
}
