//! A transaction as our own tools show it: one readable line, or one JSON object. Pure; used by `log`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::records::Acl;
use crate::txn::{CreateOwner, Txn, TxnBody, kind_name};

/// What a type is called; `multi` knows types that do not exist.
fn name(body: &TxnBody) -> String {
    kind_name(body.kind()).map_or_else(|| format!("unknown {}", body.kind()), str::to_owned)
}

/// Milliseconds since 1970, in UTC: `2026-11-22T14:50:41.123Z`.
pub fn time(wall_ms: i64) -> String {
    Timestamp::from_millisecond(wall_ms).map_or_else(|_| wall_ms.to_string(), |time| format!("{time:.3}"))
}

/// `31 world:anyone`, with the permissions in zkCli's letters.
fn acl(list: &[Acl]) -> String {
    let one = |acl: &Acl| {
        let letters: String = "rwcda"
            .chars()
            .enumerate()
            .filter(|(bit, _)| acl.perms & (1 << bit) != 0)
            .map(|(_, letter)| letter)
            .collect();
        format!("{}:{}:{letters}", acl.scheme.as_deref().unwrap_or_default(), acl.id.as_deref().unwrap_or_default())
    };
    list.iter().map(one).collect::<Vec<_>>().join(",")
}

/// An ACL as JSON.
pub fn acl_json(list: &[Acl]) -> Value {
    list.iter().map(|acl| json!({ "scheme": acl.scheme, "id": acl.id, "perms": acl.perms })).collect()
}

/// Bytes as JSON: null, or base64.
pub fn data_json(data: Option<&[u8]>) -> Value {
    data.map_or(Value::Null, |bytes| BASE64.encode(bytes).into())
}

/// How much data, or all of it as text where it is text.
fn data(bytes: Option<&[u8]>, shown: bool) -> String {
    match bytes {
        None => "null".into(),
        Some(bytes) if shown => match std::str::from_utf8(bytes) {
            Ok(text) => format!("{text:?}"),
            Err(_) => format!("base64 {}", BASE64.encode(bytes)),
        },
        Some(bytes) => format!("{} bytes", bytes.len()),
    }
}

fn owner(owner: CreateOwner) -> String {
    match owner {
        CreateOwner::None => "persistent".into(),
        CreateOwner::Session => "ephemeral".into(),
        CreateOwner::Container => "container".into(),
        CreateOwner::Ttl { ttl_ms } => format!("ttl {ttl_ms} ms"),
    }
}

/// The paths that a transaction touches; for choosing by path.
pub fn paths(body: &TxnBody) -> Vec<&str> {
    match body {
        TxnBody::Create(create) => vec![&create.path],
        TxnBody::Delete { path, .. } => vec![path],
        TxnBody::SetData(set) | TxnBody::Reconfig(set) => vec![&set.path],
        TxnBody::SetAcl(set) => vec![&set.path],
        TxnBody::Check(check) => vec![&check.path],
        TxnBody::CloseSession { paths } => paths.iter().flatten().map(String::as_str).collect(),
        TxnBody::Multi(subs) => subs.iter().flat_map(paths).collect(),
        TxnBody::CreateSession { .. } | TxnBody::Error(_) | TxnBody::Unknown { .. } => Vec::new(),
    }
}

fn body_line(body: &TxnBody, with_data: bool) -> String {
    let name = name(body);
    match body {
        TxnBody::CreateSession { timeout_ms } => format!("{name} timeout {timeout_ms} ms"),
        TxnBody::CloseSession { paths: None } => name,
        TxnBody::CloseSession { paths: Some(paths) } => format!("{name} [{}]", paths.join(", ")),
        TxnBody::Create(create) => format!(
            "{name} {} {}, {}, acl {}, parent cversion {}",
            create.path,
            owner(create.owner),
            data(create.data.as_deref(), with_data),
            acl(&create.acl),
            create.parent_cversion
        ),
        TxnBody::Delete { path, .. } => format!("{name} {path}"),
        TxnBody::SetData(set) | TxnBody::Reconfig(set) => {
            format!("{name} {} {}, version {}", set.path, data(set.data.as_deref(), with_data), set.version)
        }
        TxnBody::SetAcl(set) => format!("{name} {} {}, aversion {}", set.path, acl(&set.acl), set.version),
        TxnBody::Check(check) => format!("{name} {} version {}", check.path, check.version),
        TxnBody::Multi(subs) => {
            let subs: Vec<String> = subs.iter().map(|sub| body_line(sub, with_data)).collect();
            format!("{name} [{}]", subs.join("; "))
        }
        TxnBody::Error(code) => format!("{name} {code}"),
        TxnBody::Unknown { .. } => name,
    }
}

/// One line, without its end.
pub fn line(txn: &Txn, with_data: bool) -> String {
    let header = &txn.header;
    let digest = txn.digest.map_or_else(String::new, |digest| format!(" digest {:x}", digest.tree_digest));
    format!(
        "{} {} session {} cxid {} {}{digest}",
        header.zxid,
        time(header.time_ms),
        header.client_id,
        header.cxid,
        body_line(&txn.body, with_data)
    )
}

fn body_json(body: &TxnBody) -> Value {
    let mut value = match body {
        TxnBody::CreateSession { timeout_ms } => json!({ "timeout_ms": timeout_ms }),
        TxnBody::CloseSession { paths } => json!({ "paths": paths }),
        TxnBody::Create(create) => json!({
            "path": create.path,
            "data": data_json(create.data.as_deref()),
            "acl": acl_json(&create.acl),
            "kind": match create.owner {
                CreateOwner::None => "persistent",
                CreateOwner::Session => "ephemeral",
                CreateOwner::Container => "container",
                CreateOwner::Ttl { .. } => "ttl",
            },
            "ttl_ms": match create.owner {
                CreateOwner::Ttl { ttl_ms } => Some(ttl_ms),
                CreateOwner::None | CreateOwner::Session | CreateOwner::Container => None,
            },
            "parent_cversion": create.parent_cversion,
        }),
        TxnBody::Delete { path, .. } => json!({ "path": path }),
        TxnBody::SetData(set) | TxnBody::Reconfig(set) => {
            json!({ "path": set.path, "data": data_json(set.data.as_deref()), "version": set.version })
        }
        TxnBody::SetAcl(set) => json!({ "path": set.path, "acl": acl_json(&set.acl), "aversion": set.version }),
        TxnBody::Check(check) => json!({ "path": check.path, "version": check.version }),
        TxnBody::Multi(subs) => json!({ "operations": subs.iter().map(body_json).collect::<Vec<_>>() }),
        TxnBody::Error(code) => json!({ "code": code }),
        TxnBody::Unknown { .. } => json!({}),
    };
    value["type"] = name(body).into();
    value
}

/// One object. Zxids, sessions and digests are strings of hex: JSON's numbers do not hold 64 bits everywhere.
pub fn object(txn: &Txn) -> Value {
    let mut value = body_json(&txn.body);
    value["zxid"] = txn.header.zxid.to_string().into();
    value["time_ms"] = txn.header.time_ms.into();
    value["session"] = txn.header.client_id.to_string().into();
    value["cxid"] = txn.header.cxid.into();
    value["digest"] = txn.digest.map(|digest| format!("{:#x}", digest.tree_digest)).into();
    value
}
