#![forbid(unsafe_code)]
#![deny(warnings)]

use std::num::ParseIntError;

use stream_binder::{
    Context, Delivery, Failure, FromDelivery, Header, Headers, Json, Message, Meta, Outcome, Payload, State,
    StreamBridge, Text, TypedHeader, consumer, function, supplier,
};

#[derive(Clone)]
struct Db;

struct Tenant(String);

impl FromDelivery for Tenant {
    type Rejection = Failure;

    async fn from_delivery(delivery: &Delivery, _: &Context) -> Result<Self, Failure> {
        let tenant = delivery.header("tenant").map(|name| Self(name.into_owned()));
        tenant.ok_or_else(|| Failure::reject("no tenant"))
    }
}

struct Price(u32);

impl std::str::FromStr for Price {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        text.parse().map(Self)
    }
}

impl TypedHeader for Price {
    const NAME: &'static str = "price";
}

#[consumer]
async fn nothing() {}

#[consumer(binding = "orders")]
async fn all(
    State(_db): State<Db>,
    Json(_json): Json<Vec<u8>>,
    Text(_text): Text,
    meta: Meta,
    headers: Headers,
    Header(Price(_price)): Header<Price>,
    tenant: Option<Tenant>,
    payload: Result<Payload<u8>, Failure>,
    delivery: Delivery,
    bridge: StreamBridge,
) -> Result<(), ParseIntError> {
    let _ = (meta, headers, tenant.map(|t| t.0), payload.is_ok(), delivery, bridge);
    Ok(())
}

#[consumer]
async fn outcome(mut text: Text) -> Outcome {
    text.0.clear();
    Outcome::Ack
}

#[function(name = "message", output = "elsewhere")]
async fn tagged(Text(text): Text) -> Result<Option<Vec<Message>>, Failure> {
    Ok(Some(vec![Message::text(text).tag("t").key("k")]))
}

// Names that generated code might use as well.
#[function]
async fn make(__delivery: Text) -> u64 {
    __delivery.len() as u64
}

#[supplier(every = "500ms", binding = "ticks")]
pub(crate) async fn ticks(State(_db): State<Db>, _bridge: StreamBridge) -> Option<&'static str> {
    None
}

fn main() {}
