use super::*;

#[test]
fn an_error_is_one_pointer_wide_and_can_cross_threads() {
    fn crosses<T: Send + Sync + 'static>() {}
    crosses::<Error>();
    assert_eq!(size_of::<Error>(), size_of::<usize>());
}

#[test]
fn the_text_says_whether_the_message_may_be_stored() {
    let error = Error::new(ErrorKind::Timeout, "send to topic orders: no reply in 3s");
    assert_eq!(error.to_string(), "send to topic orders: no reply in 3s");
    assert_eq!(
        error.with_persisted(Persisted::Maybe).to_string(),
        "send to topic orders: no reply in 3s; the message may have been stored"
    );
}

#[test]
fn refusals_keep_code_and_reason_and_map_to_a_kind() {
    for (code, kind, retryable) in [
        (ResponseCode::TOPIC_NOT_EXIST, ErrorKind::TopicNotFound, false),
        (ResponseCode::SYSTEM_BUSY, ErrorKind::Busy, true),
        (ResponseCode::SERVICE_NOT_AVAILABLE, ErrorKind::Busy, true),
        (
            ResponseCode::REQUEST_CODE_NOT_SUPPORTED,
            ErrorKind::Unsupported,
            false,
        ),
        (ResponseCode::NO_PERMISSION, ErrorKind::Rejected, false),
        (ResponseCode(4711), ErrorKind::Rejected, false),
    ] {
        let refused = ResponseError::Refused {
            code,
            remark: "no".into(),
        };
        let error = Error::from_response("SendMessageV2", "broker-a", refused);
        assert_eq!(error.kind(), kind, "{code}");
        assert_eq!(error.is_retryable(), retryable, "{code}");
        assert_eq!(error.response(), Some((code, "no")));
        assert_eq!(error.broker(), Some("broker-a"));
        assert_eq!(
            error.to_string(),
            format!("SendMessageV2 to broker-a: refused with {code}: no")
        );
    }
}

#[test]
fn the_cause_is_the_source() {
    let error = Error::from_response(
        "HeartBeat",
        "127.0.0.1:10911",
        ResponseError::Malformed(CodecError::Field("missing field `offset`".into())),
    );
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert_eq!(error.source().unwrap().to_string(), "missing field `offset`");
    let copy = error.clone();
    drop(error);
    assert_eq!(copy.source().unwrap().to_string(), "missing field `offset`");
}

#[test]
fn a_refusal_of_the_sender_is_told_from_one_of_the_request() {
    let answer = |code: ResponseCode, remark: &str| {
        let remark = remark.to_owned();
        Error::from_response("PullMessage", "broker-a", ResponseError::Refused { code, remark })
    };
    for (code, remark) in [
        (
            ResponseCode::SYSTEM_ERROR,
            "org.apache.rocketmq.acl.common.AclException: No acl config for orders-svc, ..",
        ),
        (ResponseCode::NO_PERMISSION, "User:orders-svc is not found."),
        (ResponseCode::NO_PERMISSION, "check signature failed."),
        (ResponseCode::NO_PERMISSION, "username cannot be null."),
        (
            ResponseCode::NO_PERMISSION,
            "User:orders-svc has no permission to access Topic:orders from 127.0.0.1, no matched policies.",
        ),
        (
            ResponseCode::NO_PERMISSION,
            "Authentication failed. Please verify the credentials and try again.",
        ),
    ] {
        let error = answer(code, remark);
        assert_eq!(error.kind(), ErrorKind::Auth, "{remark}");
        assert!(!error.is_retryable());
        assert!(error.to_string().ends_with(
            "; check the credentials of this client, and on the server the user, its secret and what it may do"
        ));
    }
    for (code, remark) in [
        (ResponseCode::SYSTEM_ERROR, "java.lang.NullPointerException"),
        (
            ResponseCode::NO_PERMISSION,
            "the topic[orders] sending message is forbidden",
        ),
        (ResponseCode::NO_PERMISSION, "subscription group no permission, g"),
        (ResponseCode::TOPIC_NOT_EXIST, "AclException"),
    ] {
        assert_ne!(answer(code, remark).kind(), ErrorKind::Auth, "{remark}");
    }
}
