use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use rocketmq_client::protocol::RequestCode;
use sha1::Sha1;

use super::*;

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A request whose fields are given in the order of their keys.
fn request(code: RequestCode, fields: &[(&str, &str)]) -> Frame {
    let mut frame = Frame::request(code.0);
    for (key, value) in fields {
        frame.fields.push(key, value);
    }
    frame
}

fn sign(mut frame: Frame, name: &str, secret: &str) -> Frame {
    let mut values: Vec<(String, String)> = frame
        .fields
        .iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    values.push(("AccessKey".to_owned(), name.to_owned()));
    values.sort();
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).unwrap();
    for (_, value) in values {
        mac.update(value.as_bytes());
    }
    mac.update(&frame.body);
    frame.fields.push("AccessKey", name);
    frame
        .fields
        .push("Signature", &STANDARD.encode(mac.finalize().into_bytes()));
    frame
}

fn control(style: AccessStyle) -> AccessControl {
    let users = [
        User::new("root", "12345678").admin(),
        User::new("sender", "12345678").topic("orders", [Action::Pub]),
        User::new("reader", "12345678")
            .topic("ord*", [Action::Sub])
            .topic("orders", [Action::Sub])
            .group("billing", [Action::Sub]),
        User::new("former", "12345678").admin().disabled(),
    ];
    AccessControl::new(style, "DefaultCluster", &users)
}

fn send(topic: &str) -> Frame {
    request(RequestCode::SEND_MESSAGE_V2, &[("a", "group"), ("b", topic)])
}

fn pull(topic: &str, group: &str) -> Frame {
    request(
        RequestCode::PULL_MESSAGE,
        &[("consumerGroup", group), ("topic", topic)],
    )
}

#[track_caller]
fn refused(control: &AccessControl, frame: &Frame, code: ResponseCode, remark: &str) {
    let refusal = control.check(frame, PEER).unwrap_err();
    assert_eq!((refusal.code, refusal.remark.as_str()), (code, remark));
}

#[test]
fn a_sender_has_to_be_known_in_both_styles() {
    let users = control(AccessStyle::Users);
    let no = ResponseCode::NO_PERMISSION;
    refused(&users, &send("orders"), no, "username cannot be null.");
    let frame = sign(send("orders"), "nobody", "12345678");
    refused(&users, &frame, no, "User:nobody is not found.");
    let frame = sign(send("orders"), "former", "12345678");
    refused(&users, &frame, no, "User:former is disabled.");
    let frame = sign(send("orders"), "sender", "wrong");
    refused(&users, &frame, no, "check signature failed.");

    let plain = control(AccessStyle::PlainAcl);
    let no = ResponseCode::SYSTEM_ERROR;
    let text = |reason: &str| format!("org.apache.rocketmq.acl.common.AclException: {reason}");
    refused(&plain, &send("orders"), no, &text("No accessKey is configured"));
    let frame = sign(send("orders"), "nobody", "12345678");
    refused(&plain, &frame, no, &text("No acl config for nobody"));
    let frame = sign(send("orders"), "sender", "wrong");
    refused(
        &plain,
        &frame,
        no,
        &text("Check signature failed for accessKey=sender"),
    );
}

#[test]
fn a_changed_request_does_not_pass_with_the_signature_of_the_old_one() {
    for style in [AccessStyle::Users, AccessStyle::PlainAcl] {
        let control = control(style);
        let good = sign(send("orders"), "sender", "12345678");
        control.check(&good, PEER).unwrap();
        let changed = Frame {
            body: "other".into(),
            ..good.clone()
        };
        control.check(&changed, PEER).unwrap_err();
        let mut longer = good;
        longer.fields.push("ns", "shop");
        control.check(&longer, PEER).unwrap_err();
    }
}

#[test]
fn rights_are_per_topic_and_group() {
    for style in [AccessStyle::Users, AccessStyle::PlainAcl] {
        let control = control(style);
        let allowed = |frame: Frame, user: &str| control.check(&sign(frame, user, "12345678"), PEER).is_ok();
        assert!(allowed(send("orders"), "sender"));
        assert!(!allowed(send("other"), "sender"));
        assert!(!allowed(send("orders"), "reader"));
        assert!(allowed(send("anything"), "root"));
        assert!(allowed(pull("orders", "billing"), "reader"));
        assert!(!allowed(pull("orders", "shipping"), "reader"));
        assert!(!allowed(pull("other", "billing"), "reader"));
        assert!(allowed(pull("%RETRY%billing", "billing"), "reader"));
        // A message that is given back.
        let back = request(
            RequestCode::SEND_MESSAGE_V2,
            &[("a", "billing"), ("b", "%RETRY%billing")],
        );
        assert!(allowed(back.clone(), "reader"));
        assert!(!allowed(back, "sender"));
        // Only 5.x knows beginnings of names.
        assert_eq!(
            allowed(pull("ordnance", "billing"), "reader"),
            style == AccessStyle::Users
        );
        let create = request(RequestCode::UPDATE_AND_CREATE_TOPIC, &[("topic", "orders")]);
        assert!(!allowed(create.clone(), "reader"));
        assert!(allowed(create, "root"));
    }
}

#[test]
fn what_a_body_names_is_looked_at_too() {
    let heartbeat = |group: &str, topic: &str| {
        let subscription = format!(r#"{{"topic":"{topic}","subString":"*"}}"#);
        let consumer = format!(
            r#"{{"groupName":"{group}","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING",
                "consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","subscriptionDataSet":[{subscription}]}}"#
        );
        let body = format!(r#"{{"clientID":"c","producerDataSet":[],"consumerDataSet":[{consumer}]}}"#);
        Frame {
            body: body.into(),
            ..request(RequestCode::HEART_BEAT, &[])
        }
    };
    let lock = |group: &str, topic: &str| {
        let queue = format!(r#"{{"topic":"{topic}","brokerName":"b","queueId":0}}"#);
        let body = format!(
            r#"{{"consumerGroup":"{group}","clientId":"c","onlyThisBroker":true,"mqSet":[{queue}]}}"#
        );
        Frame {
            body: body.into(),
            ..request(RequestCode::LOCK_BATCH_MQ, &[])
        }
    };
    let control = control(AccessStyle::Users);
    for ask in [heartbeat, lock] as [fn(&str, &str) -> Frame; 2] {
        let check = |group, topic| control.check(&sign(ask(group, topic), "reader", "12345678"), PEER);
        check("billing", "orders").unwrap();
        check("billing", "%RETRY%billing").unwrap();
        let refusal = check("billing", "other").unwrap_err();
        assert_eq!(
            refusal.remark,
            "User:reader has no permission to access Topic:other from 127.0.0.1, no matched policies."
        );
        let refusal = check("shipping", "orders").unwrap_err();
        assert!(refusal.remark.contains("Group:shipping"), "{}", refusal.remark);
    }
}

#[test]
fn popping_needs_rights_to_the_group_and_to_the_topic() {
    let control = control(AccessStyle::Users);
    for code in [
        RequestCode::POP_MESSAGE,
        RequestCode::ACK_MESSAGE,
        RequestCode::CHANGE_MESSAGE_INVISIBLETIME,
        RequestCode::NOTIFICATION,
        RequestCode::PEEK_MESSAGE,
    ] {
        let ask = |topic, group| {
            let frame = request(code, &[("consumerGroup", group), ("topic", topic)]);
            control.check(&sign(frame, "reader", "12345678"), PEER)
        };
        ask("orders", "billing").unwrap();
        assert!(ask("other", "billing").is_err(), "{code}");
        assert!(ask("orders", "shipping").is_err(), "{code}");
        // To a real broker too, what is behind the prefix of a retry topic is a group.
        let refusal = ask("%RETRY%billing_orders", "billing").unwrap_err();
        assert!(
            refusal.remark.contains("Group:billing_orders"),
            "{}",
            refusal.remark
        );
    }
    let polling = [("consumerGroup", "billing"), ("topic", "orders")];
    let frame = sign(request(RequestCode::POLLING_INFO, &polling), "reader", "12345678");
    control.check(&frame, PEER).unwrap_err();
}

#[test]
fn users_come_and_go_while_the_broker_runs() {
    let control = control(AccessStyle::Users);
    let frame = sign(send("orders"), "sender", "12345678");
    control.put(User::new("sender", "87654321").topic("*", [Action::All]));
    control.check(&frame, PEER).unwrap_err();
    control
        .check(&sign(send("any"), "sender", "87654321"), PEER)
        .unwrap();
    control.remove("sender");
    refused(
        &control,
        &frame,
        ResponseCode::NO_PERMISSION,
        "User:sender is not found.",
    );
}

#[test]
fn secrets_are_never_printed() {
    let printed = format!(
        "{:?}",
        AccessControl::new(AccessStyle::Users, "c", &[User::new("u", "sesame")])
    );
    assert!(!printed.contains("sesame"), "{printed}");
}
