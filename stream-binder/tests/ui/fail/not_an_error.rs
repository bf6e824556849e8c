use stream_binder::{Text, consumer};

#[consumer]
async fn orders(Text(text): Text) -> Result<(), String> {
    Err(text)
}

fn main() {}
