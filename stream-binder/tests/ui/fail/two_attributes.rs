use stream_binder::{Text, function};

#[function]
#[stream_binder::consumer]
async fn orders(text: Text) -> Text {
    text
}

fn main() {}
