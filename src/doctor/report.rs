//! Findings for people and for machines. Called by `cli::doctor`.

use std::io::{self, Write};

use serde_json::json;

use crate::doctor::findings::{Finding, Severity};

fn name(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// 0 with nothing but notes, 1 with warnings, 2 with errors.
pub fn exit_code(findings: &[Finding]) -> i32 {
    findings.iter().map(|finding| finding.severity as i32).max().unwrap_or(0)
}

fn count(findings: &[Finding], severity: Severity) -> usize {
    findings.iter().filter(|finding| finding.severity == severity).count()
}

/// For people: worst first.
pub fn print_text(findings: &[Finding], out: &mut dyn Write) -> io::Result<()> {
    for Finding { severity, check, what, consequence, remedy } in findings {
        writeln!(out, "{:<8} {check}: {what}", name(*severity))?;
        for (label, text) in [("so", consequence), ("do", remedy)] {
            if !text.is_empty() {
                writeln!(out, "         {label}: {text}")?;
            }
        }
    }
    let (errors, warnings) = (count(findings, Severity::Error), count(findings, Severity::Warning));
    writeln!(out, "{errors} errors, {warnings} warnings")
}

/// For machines: one object.
pub fn print_json(findings: &[Finding], out: &mut dyn Write) -> io::Result<()> {
    let list: Vec<_> = findings
        .iter()
        .map(|finding| {
            json!({
                "severity": name(finding.severity),
                "check": finding.check,
                "what": finding.what,
                "consequence": finding.consequence,
                "remedy": finding.remedy,
            })
        })
        .collect();
    let (errors, warnings) = (count(findings, Severity::Error), count(findings, Severity::Warning));
    writeln!(out, "{}", json!({ "errors": errors, "warnings": warnings, "findings": list }))
}
