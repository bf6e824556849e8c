use stream_binder::{Meta, consumer};

struct Order;

#[consumer]
async fn orders(meta: Meta, order: Order) {
    let _ = (meta, order);
}

fn main() {}
