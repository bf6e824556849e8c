use stream_binder::{Json, consumer};

struct Order;

#[consumer]
async fn orders(Json(_order): Json<Order>) {}

fn main() {}
