"""What is published about the released data sets, as figures to recompute.

Sources: [paper] arXiv 2504.01903 and its project page, [code] UCSC-VLAA/STAR-1 @ b493335, [data] counted in the released
STAR-1.json when this was written: these fix the file rather than test the paper.
"""

from star1.policies import Rubric

STAR_1, STAR_41K, BENIGN = "STAR-1", "STAR-41K", "STAR-benign-915"
NAMES = (STAR_1, STAR_41K, BENIGN)

# [paper] section 2 and appendix E; the number of rows with full marks is not published.
ROWS = {STAR_1: 1_000, STAR_41K: 40_961, BENIGN: 915}
# [data] the keys of the rows; [code] the ranges.
RUBRIC = Rubric(
    minimum=0,
    maximum=10,
    criteria={
        "Content_Safety_Compliance": "safety",
        "Relevancy_and_No_Redundant_Content": "relevance",
        "Accuracy_of_Thinking_Process": "accuracy",
    },
)
# [code] the scorer of benign rows.
BENIGN_RUBRIC = Rubric(
    minimum=1,
    maximum=5,
    criteria={
        "Content_Safety_Compliance": "safety",
        "Quality_of_Thinking_Process": "quality",
        "Compliance_Degree": "compliance",
    },
)
OTHER = "Other"  # [code] what the classifier says where no category applies

# [code] the names, in processing order; [data] rows of STAR-1.
SOURCES = {
    "GPTFuzz": 2,
    "SimpleSafetyTests": 4,
    "MaliciousInstruct": 1,
    "QHarm": 1,
    "TDCRedTeaming": 1,
    "MaliciousInstructions": 2,
    "HarmfulQ": 1,
    "HExPHI": 16,
    "HarmBench": 31,
    "AttaQ": 24,
    "HarmfulQA": 2,
    "SafetyInstructions": 37,
    "UltraSafety": 19,
    "ALERT": 139,
    "SaladBench": 298,
    "PKUSafeRLHF": 94,
    "BeaverTails": 67,
    "wildjailbreak": 261,
}
# [paper] the eight categories; [data] labels in STAR-1, where a row may have several.
LABELS = {
    "Illicit / Criminal Behavior": 381,
    "Privacy / Personal Data": 229,
    "Harassment / Hate / Discrimination": 165,
    "Intellectual Property": 159,
    "Misinformation / Disinformation": 152,
    "Violence / Physical Harm": 93,
    "Self-Harm": 85,
    "Sexual / Adult": 52,
}
LABELS_PER_ROW = {1: 700, 2: 285, 3: 14, 4: 1}  # [data]
# [data] words between white space in STAR-1; the percentile is the smallest value above 90 % of them.
WORDS = {
    ("question", "median"): 15,
    ("thinking", "median"): 209,
    ("thinking", "p90"): 289,
    ("thinking", "max"): 435,
    ("answer", "median"): 50,
    ("answer", "p90"): 176,
}
# [data] answers that hold "polic" in any case; some of them mean the police.
POLIC_ANSWERS = 93

# [code] what the published selection keeps of STAR-1 when asked for fewer rows: digest of the ids in file order, spaces between.
KEPT = {
    900: "ce1fe9d5b7f30954",
    500: "fe81aedc86395e6c",
    250: "dd1a4cacd8ebc221",
}

# What no released file can tell: the figure, and where it would have to come from.
NOT_RELEASED = (
    ("rows of the 18 sources together", "about 528.8K", "the sources themselves: `star1 preset paper`, stages fetch and collect"),
    ("benign rewrites before scoring", 1_000, "the rows that were dropped"),
    ("safety, mean of five models, in points", "+40.0", "fine-tuning and evaluation"),
    ("reasoning, mean of five models, in points", "-1.1", "fine-tuning and evaluation"),
)  # fmt: skip
