use stream_binder::{Json, Text, consumer};

#[consumer]
async fn orders(Text(text): Text) -> Json<usize> {
    Json(text.len())
}

fn main() {}
