use std::rc::Rc;

use stream_binder::{Text, consumer};

#[consumer]
async fn orders(Text(text): Text) {
    let shared = Rc::new(text);
    std::future::ready(()).await;
    println!("{shared}");
}

fn main() {}
