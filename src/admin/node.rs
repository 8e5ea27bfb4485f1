//! `node`, which Apache lacks: one node for the tree browser of the status page. Shows what a client may read that comes
//! from the same address and says no more about itself than the request does.

use serde_json::{Value, json};

use super::commands::{CommandContext, array, fields, own_error};
use super::json::Fields;
use crate::ids::{SessionId, Zxid};
use crate::limits::{SHOWN_CHILDREN_MAX, SHOWN_DATA_BYTES_MAX};

/// The node that the parameter `path` names, the root without it.
pub fn node(command: &CommandContext) -> Fields {
    let path = command.parameter("path").unwrap_or("/");
    let asker = &command.query.asker;
    let node = match command.context.server.node(path, asker.address, asker.authorization.as_deref()) {
        Ok(node) => node,
        Err(code) => return own_error(format!("{path}: {code}")),
    };
    let stat = &node.stat;
    // Text as it is, anything else in hexadecimal. A character may have been cut in two.
    let (text, hex) = match std::str::from_utf8(&node.data) {
        Err(error) if error.error_len().is_some() || node.data.len() < SHOWN_DATA_BYTES_MAX => {
            (Value::Null, node.data.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into())
        }
        _ => (String::from_utf8_lossy(&node.data).into(), Value::Null),
    };
    fields(json!({
        "path": path,
        "data": text,
        "data_hex": hex,
        "data_cut": node.data.len() < usize::try_from(stat.data_length).unwrap_or(0),
        "children": array(node.children.iter().take(SHOWN_CHILDREN_MAX).cloned()),
        "stat": {
            "czxid": Zxid(stat.czxid).to_string(),
            "mzxid": Zxid(stat.mzxid).to_string(),
            "pzxid": Zxid(stat.pzxid).to_string(),
            "ctime": stat.ctime,
            "mtime": stat.mtime,
            "version": stat.version,
            "cversion": stat.cversion,
            "aversion": stat.aversion,
            "ephemeral_owner": SessionId(stat.ephemeral_owner).to_string(),
            "data_length": stat.data_length,
            "num_children": stat.num_children,
        },
    }))
}
