"""The graders of reasoning benchmarks, one module each; `star1.grading` is the way to them."""
