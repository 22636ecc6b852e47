"""The audit loop: people label a blind sample of judged answers, and what they say measures the judges (docs/audit.md)."""
