use stream_binder::{Json, supplier};

#[supplier]
async fn ticks(Json(n): Json<u64>) -> Json<u64> {
    Json(n)
}

fn main() {}
