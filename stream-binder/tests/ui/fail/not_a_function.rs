use stream_binder::consumer;

#[consumer]
struct Orders;

fn main() {}
