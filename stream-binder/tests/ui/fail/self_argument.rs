use stream_binder::{Text, consumer};

struct Shop;

impl Shop {
    #[consumer]
    async fn orders(&self, Text(_text): Text) {}
}

fn main() {}
