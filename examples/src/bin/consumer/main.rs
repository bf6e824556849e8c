//! A service that consumes orders until Ctrl-C. Send it some with any RocketMQ client, to the topic `orders`
//! with the tag `vip` or `late`: {"id": 42, "total": 9.5}

use serde::Deserialize;
use stream_binder::{App, Config, Failure, Json, Meta, consumer};

#[derive(Deserialize)]
struct Order {
    id: u64,
    total: f64,
}

/// Bound to `orders-in-0`. An `Err` is delivered again later, and at last goes to the dead letters.
#[consumer]
async fn orders(Json(order): Json<Order>, meta: Meta) -> Result<(), Failure> {
    if order.total < 0.0 {
        return Err(Failure::reject(format!(
            "order {} has a negative total",
            order.id
        )));
    }
    println!(
        "order {}: {:.2}, tag {:?}, attempt {}",
        order.id,
        order.total,
        meta.tags(),
        meta.attempt()
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let config = Config::builder()
        .named_yaml("application.yml", include_str!("application.yml"))
        .environment(std::env::vars_os());
    App::new(config.load()?).run().await?;
    Ok(())
}
