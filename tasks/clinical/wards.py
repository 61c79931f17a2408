"""What is treated on which ward: conditions, symptoms, drugs with doses, and measurements of which more is worse."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Drug:
    """``unit`` doses are multiples of ``step`` from ``step`` to ``step * most``."""

    name: str
    step: int
    most: int
    unit: str = "mg"


@dataclass(frozen=True)
class Measure:
    """A value from ``low`` (good) to ``high`` (bad), whole numbers, with its unit as written."""

    name: str
    low: int
    high: int
    unit: str = ""


@dataclass(frozen=True)
class Ward:
    name: str
    conditions: tuple[str, ...]
    symptoms: tuple[str, ...]
    drugs: tuple[Drug, ...]
    measures: tuple[Measure, ...]
    tests: tuple[str, ...]


def _ward(name: str, conditions: str, symptoms: str, drugs: str, measures: str, tests: str) -> Ward:
    """Parse the compact notation used below: items by ``|``, parts of a drug or measure by ``:``."""

    def items(text: str) -> tuple[str, ...]:
        return tuple(text.split("|"))

    def drug(text: str) -> Drug:
        label, step, most, *unit = text.split(":")
        return Drug(label, int(step), int(most), unit[0] if unit else "mg")

    def measure(text: str) -> Measure:
        label, low, high, unit = text.split(":")
        return Measure(label, int(low), int(high), f" {unit}" if unit else "")

    return Ward(
        name,
        items(conditions),
        items(symptoms),
        tuple(map(drug, items(drugs))),
        tuple(map(measure, items(measures))),
        items(tests),
    )


CARDIOLOGY = _ward(
    "cardiology",
    "atrial fibrillation|heart failure|a leaking mitral valve|an old infarct|high blood pressure|a pacemaker",
    "chest pain|palpitations|ankle swelling|breathlessness on stairs|fainting|pressure in the left arm",
    "bisoprolol:5:4|furosemide:20:6|ramipril:5:3|apixaban:5:2|amiodarone:100:4|spironolactone:25:4|digoxin:125:2:micrograms",
    "troponin:8:940:ng/l|NT-proBNP:90:8900:pg/ml|resting pulse:58:148:",
    "an echocardiogram|a 24 hour tape|a coronary angiogram|a treadmill test",
)
RESPIRATORY = _ward(
    "respiratory medicine",
    "asthma|chronic bronchitis|pulmonary fibrosis|sleep apnoea|an old pleural effusion|bronchiectasis",
    "a productive cough|wheeze|night sweats|breathlessness at rest|pain on breathing in|blood in the sputum",
    "prednisolone:10:6|amoxicillin:250:4|doxycycline:100:2|salbutamol:100:8:micrograms|theophylline:200:3|montelukast:5:2",
    "C-reactive protein:4:290:mg/l|breathing rate:14:38:a minute|white count:5:29:",
    "a chest film|spirometry|a sputum culture|a bronchoscopy",
)
SURGERY = _ward(
    "surgery",
    "gallstones|an inguinal hernia|diverticular disease|a burst appendix|adhesions|a fractured hip",
    "wound pain|vomiting|a swollen belly|redness around the scar|cramps after meals|a discharging drain",
    "paracetamol:500:2|cefuroxime:750:2|metronidazole:400:2|enoxaparin:20:4|morphine:5:5|ondansetron:4:2",
    "drain output:10:680:ml|C-reactive protein:6:310:mg/l|pain score:1:9:of 10",
    "an abdominal scan|a wound swab|a clip removal|a stoma review",
)
NEUROLOGY = _ward(
    "neurology",
    "epilepsy|migraine|multiple sclerosis|Parkinson disease|an earlier stroke|a nerve palsy",
    "a weak right hand|double vision|slurred speech|unsteady gait|numb fingers|a severe headache",
    "levetiracetam:250:6|clopidogrel:75:2|lamotrigine:25:8|levodopa:50:6|gabapentin:100:9|propranolol:40:4",
    "stroke score:1:24:|seizures a week:0:14:|tremor score:1:12:",
    "an MRI of the head|an EEG|nerve conduction studies|a lumbar puncture",
)
NEPHROLOGY = _ward(
    "nephrology",
    "polycystic kidneys|diabetic kidney disease|a kidney transplant|kidney stones|lupus nephritis|a single kidney",
    "flank pain|puffy eyes|foamy urine|passing little urine|itching at night|cramp during dialysis",
    "tacrolimus:1:8|sevelamer:800:4|calcitriol:1:3:micrograms|bumetanide:1:5|mycophenolate:250:6|alfacalcidol:1:4:micrograms",
    "creatinine:84:890:umol/l|potassium:4:7:mmol/l|urine protein:90:6400:mg a day",
    "a renal biopsy|a fistula check|a bladder scan|a dialysis review",
)
ONCOLOGY = _ward(
    "oncology",
    "breast cancer|bowel cancer|lymphoma|a lung tumour|prostate cancer|melanoma",
    "fever after chemotherapy|mouth ulcers|weight loss|back pain at night|bruising|loss of appetite",
    "dexamethasone:2:8|capecitabine:500:4|letrozole:2:2|filgrastim:100:5:micrograms|oxycodone:5:8|tamoxifen:20:2",
    "tumour marker:12:980:|calcium:88:148:mg/l|nausea score:1:10:of 10",
    "a staging scan|a port flush|a bone marrow sample|a cycle review",
)
GASTROENTEROLOGY = _ward(
    "gastroenterology",
    "Crohn disease|a duodenal ulcer|coeliac disease|cirrhosis|reflux|pancreatitis",
    "loose stools|heartburn|yellow eyes|black stools|cramps after meals|vomiting",
    "omeprazole:20:2|mesalazine:400:4|lactulose:10:3:ml|azathioprine:50:3|rifaximin:550:2|prednisolone:10:6",
    "bilirubin:9:240:umol/l|stools a day:1:15:|lipase:30:2900:units",
    "a gastroscopy|a colonoscopy|a liver scan|a breath test",
)
ENDOCRINOLOGY = _ward(
    "endocrinology",
    "type 1 diabetes|type 2 diabetes|Graves disease|an adrenal tumour|low thyroid|a pituitary cyst",
    "thirst|tremor|weight loss|heat intolerance|tiredness|night sweats",
    "metformin:500:4|insulin glargine:4:12:units|levothyroxine:25:6:micrograms|carbimazole:5:6|hydrocortisone:10:3|"
    "gliclazide:40:4",
    "fasting glucose:5:29:mmol/l|HbA1c:42:128:mmol/mol|free T4:11:88:pmol/l",
    "a thyroid scan|a foot check|an eye screen|a cortisol test",
)
RHEUMATOLOGY = _ward(
    "rheumatology",
    "gout|rheumatoid arthritis|lupus|temporal arteritis|psoriatic arthritis|osteoporosis",
    "swollen knees|morning stiffness|a red big toe|jaw pain|numb fingers|a rash on the cheeks",
    "methotrexate:5:5|colchicine:500:2:micrograms|allopurinol:100:4|prednisolone:10:6|naproxen:250:3|sulfasalazine:500:4",
    "sedimentation rate:6:118:mm|urate:280:720:umol/l|swollen joints:0:18:",
    "a joint aspiration|a bone density scan|hand films|a temporal biopsy",
)
