use stream_binder::{Text, consumer};

#[consumer]
fn orders(Text(text): Text) {
    println!("{text}");
}

fn main() {}
