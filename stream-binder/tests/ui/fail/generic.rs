use stream_binder::{Json, consumer};

#[consumer]
async fn orders<T: serde::de::DeserializeOwned>(Json(_order): Json<T>) {}

fn main() {}
