use stream_binder::{Text, function, supplier};

#[function]
async fn orders(Text(_text): Text) {}

#[supplier]
async fn ticks() {}

fn main() {}
