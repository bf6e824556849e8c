use stream_binder::{Text, function};

struct Bill;

#[function]
async fn bill(Text(_text): Text) -> Option<Bill> {
    None
}

fn main() {}
