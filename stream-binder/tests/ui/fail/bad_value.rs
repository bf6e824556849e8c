use stream_binder::{Text, consumer, supplier};

#[consumer(name = "a", name = "b")]
async fn one(Text(_text): Text) {}

#[consumer(binding = 3)]
async fn two(Text(_text): Text) {}

#[supplier(every = "1 second")]
async fn three() -> &'static str {
    "tick"
}

#[consumer(name = "a|b")]
async fn four(Text(_text): Text) {}

fn main() {}
