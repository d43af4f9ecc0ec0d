"A made-up score of the wording, as anybody may add one: words that a report has and its reference has not, per report"
from cxr_llava.score.metrics import METRICS, Metric

def new_words(texts, references):
    "How many words of each report are not in its reference"
    return [[len(set(text.lower().split()) - set(reference.lower().split()))] for text,reference in zip(texts, references)]

METRICS['new_words'] = Metric('New words', 'Words of a report that its reference lacks, a mean over reports.', new_words,
    higher_is_better=False, digits=1, in_overview=True)
