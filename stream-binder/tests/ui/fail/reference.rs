use stream_binder::{Delivery, consumer};

#[consumer]
async fn orders(delivery: &Delivery) {
    let _ = delivery;
}

fn main() {}
