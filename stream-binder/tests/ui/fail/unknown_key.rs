use stream_binder::{Text, consumer, function, supplier};

#[consumer(bindng = "orders-in-0")]
async fn one(Text(_text): Text) {}

#[consumer(every = "1s")]
async fn two(Text(_text): Text) {}

#[supplier(cron = "* * * * *")]
async fn three() -> &'static str {
    "tick"
}

#[function(binding)]
async fn four(text: Text) -> Text {
    text
}

fn main() {}
