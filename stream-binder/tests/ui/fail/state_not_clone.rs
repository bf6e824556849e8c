use stream_binder::{State, consumer};

struct Db;

#[consumer]
async fn orders(State(_db): State<Db>) {}

fn main() {}
