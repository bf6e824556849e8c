use proptest::prelude::*;

use super::*;

const ALL: [Compression; 3] = [Compression::Zlib, Compression::Lz4, Compression::Zstd];

fn available() -> impl Iterator<Item = Compression> {
    ALL.into_iter().filter(|compression| compression.is_available())
}

fn strongest(body: &[u8], compression: Compression) -> Bytes {
    compress(body, compression, 19).unwrap()
}

#[test]
fn a_body_comes_back_from_each_compression_and_is_smaller_on_the_way() {
    let body = b"again and again and again".repeat(10_000);
    for compression in available() {
        for level in [0, 1, 5, 9] {
            let compressed = compress(&body, compression, level).unwrap();
            if level > 0 {
                assert!(compressed.len() * 10 < body.len(), "{compression:?}");
            }
            assert_eq!(decompress(&compressed, compression, body.len()).unwrap(), body);
        }
    }
}

#[test]
fn the_bits_say_the_compression_and_old_bodies_are_zlib() {
    for (compression, bits) in ALL.into_iter().zip([0x301, 0x101, 0x201]) {
        assert_eq!(compression.sys_flag(), bits);
        assert_eq!(SysFlag(bits).compression(), Ok(Some(compression)));
    }
    assert_eq!(SysFlag(1).compression(), Ok(Some(Compression::Zlib)));
    assert_eq!(SysFlag(0x401).compression(), Err(4));
}

/// Files of one level start with these bytes, whatever the content; Java's readers look at them first.
#[test]
fn frames_start_as_java_expects() {
    #[cfg(feature = "lz4")]
    {
        let lz4 = compress(b"abc", Compression::Lz4, 0).unwrap();
        assert_eq!(lz4.get(..4), Some(&[0x04, 0x22, 0x4D, 0x18][..]));
        // Version 1, independent blocks: Java's reader refuses others.
        assert_eq!(lz4.get(4).map(|flags| flags & 0b1110_0000), Some(0b0110_0000));
    }
    #[cfg(feature = "zstd")]
    assert_eq!(
        compress(b"abc", Compression::Zstd, 5).unwrap().get(..4),
        Some(&[0x28, 0xB5, 0x2F, 0xFD][..])
    );
    assert_eq!(
        compress(b"abc", Compression::Zlib, 5).unwrap().first(),
        Some(&0x78)
    );
}

#[test]
fn a_bomb_of_each_kind_stops_at_the_limit() {
    for compression in available() {
        let size = 8 * 1024 * 1024;
        let bomb = strongest(&vec![0; size], compression);
        if compression != Compression::Lz4 {
            assert!(bomb.len() * 900 < size, "{compression:?} makes {}", bomb.len());
        }
        for limit in [0, 1024, size - 1] {
            let error = decompress(&bomb, compression, limit).unwrap_err();
            let expected = CodecError::TooLarge {
                what: "decompressed body",
                size: limit as u64 + 1,
                limit: limit as u64,
            };
            assert_eq!(error, expected, "{compression:?}");
        }
        assert_eq!(decompress(&bomb, compression, size).unwrap().len(), size);
    }
}

#[test]
fn noise_and_bodies_that_are_cut_are_errors() {
    let body = (0..20_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>();
    for compression in available() {
        assert!(
            decompress(b"noise, noise", compression, 1024).is_err(),
            "{compression:?}"
        );
        let whole = compress(&body, compression, 5).unwrap();
        for cut in [1, 7, whole.len() / 2, whole.len() - 1] {
            let cut = decompress(&whole[..cut], compression, body.len());
            assert!(cut.is_err(), "{compression:?}");
        }
    }
}

#[cfg(not(feature = "zstd"))]
#[test]
fn a_compression_that_is_not_built_in_is_named() {
    let error = decompress(b"x", Compression::Zstd, 1024).unwrap_err();
    assert!(error.to_string().contains("Zstd is not built in"), "{error}");
}

proptest! {
    #[test]
    fn any_body_survives(body in proptest::collection::vec(any::<u8>(), 0..2_000), level in 0..12u32) {
        for compression in available() {
            let compressed = compress(&body, compression, level).unwrap();
            prop_assert_eq!(&decompress(&compressed, compression, body.len()).unwrap(), &body);
        }
    }

    #[test]
    fn no_input_makes_more_than_the_limit(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        body in proptest::collection::vec(0..3u8, 0..3_000),
        at: proptest::sample::Index,
        limit in 0..4_000usize,
    ) {
        for compression in available() {
            if let Ok(made) = decompress(&bytes, compression, limit) {
                prop_assert!(made.len() <= limit);
            }
            // One bit of a good body reaches deeper.
            let mut damaged = compress(&body, compression, 5).unwrap().to_vec();
            let at = at.index(damaged.len() * 8);
            damaged[at / 8] ^= 1 << (at % 8);
            if let Ok(made) = decompress(&damaged, compression, limit) {
                prop_assert!(made.len() <= limit);
            }
        }
    }
}
