"""From ScanNet's raw labels to categories: a reviewed table of synonyms and plurals, and the structural labels.

Only names of the same thing are joined. Kinds of a thing stay apart, as ScanNet's annotators kept them apart ("office
chair" is no synonym of "chair"), unless the same object gets either name from scan to scan ("couch" and "sofa"). A
recipe that joins more, as VSI-Bench's generators do ("recycling bin" into "trash can"), has a table for that.
"""

from __future__ import annotations

import unicodedata

# category: its other labels. Plurals are listed, because not every final s can be cut off ("glasses", "blinds").
_SYNONYMS: dict[str, tuple[str, ...]] = {
    "armchair": ("armchairs", "arm chair", "arm chairs"),
    "backpack": ("backpacks", "back pack", "rucksack"),
    "bag": ("bags",),
    "basket": ("baskets",),
    "bathtub": ("bath tub", "bathtubs", "tub"),
    "bed": ("beds",),
    "bench": ("benches",),
    "bicycle": ("bicycles", "bike", "bikes"),
    "binder": ("binders",),
    "blanket": ("blankets",),
    "board": ("boards",),
    "book": ("books",),
    "bookshelf": ("bookshelves", "book shelf", "bookcase", "book case", "bookcases"),
    "bottle": ("bottles",),
    "box": ("boxes",),
    "bucket": ("buckets",),
    "cabinet": ("cabinets",),
    "cabinet door": ("cabinet doors",),
    "cd case": ("cd cases",),
    "ceiling": ("ceilings",),
    "chair": ("chairs",),
    "clock": ("clocks", "wall clock"),
    "closet": ("closets",),
    "closet door": ("closet doors",),
    "closet wall": ("closet walls",),
    "clothes": ("cloths", "clothing"),
    "clothes dryer": ("clothes dryers",),
    "clothes hanger": ("clothes hangers",),
    "coat rack": ("coatrack", "coat racks"),
    "coffee maker": ("coffee machine",),
    "coffee table": ("coffee tables",),
    "column": ("columns",),
    "computer mouse": ("mouse",),
    "computer tower": ("computer towers", "pc tower"),
    "copier": ("copiers", "photocopier", "copy machine"),
    "counter": ("counters", "countertop", "counter top"),
    "cup": ("cups",),
    "curtain": ("curtains",),
    "desk": ("desks",),
    "dish rack": ("dishrack",),
    "dishwasher": ("dish washer",),
    "door": ("doors",),
    "door frame": ("doorframe", "door frames", "doorframes"),
    "dresser": ("dressers",),
    "fan": ("fans",),
    "file cabinet": ("file cabinets", "filing cabinet", "filing cabinets"),
    "floor": ("floors",),
    "folded chair": ("folded chairs", "folding chair", "folding chairs"),
    "guitar": ("guitars",),
    "handrail": ("hand rail", "hand rails", "handrails"),
    "keyboard": ("keyboards", "computer keyboard"),
    "kitchen cabinet": ("kitchen cabinets",),
    "kitchen counter": ("kitchen counters",),
    "lamp": ("lamps",),
    "laptop": ("laptops",),
    "light": ("lights",),
    "light switch": ("lightswitch", "light switches"),
    "mail tray": ("mail trays",),
    "mailbox": ("mailboxes",),
    "microwave": ("microwaves", "microwave oven"),
    "mirror": ("mirrors",),
    "monitor": ("monitors", "computer monitor", "computer monitors", "computer screen"),
    "nightstand": ("nightstands", "night stand", "night stands", "bedside table"),
    "object": ("objects",),
    "office chair": ("office chairs",),
    "ottoman": ("ottomans",),
    "oven": ("ovens",),
    "pantry wall": ("pantry walls",),
    "paper": ("papers",),
    "paper towel dispenser": ("paper towel dispensers",),
    "paper towel roll": ("paper towel rolls",),
    "person": ("people", "persons"),
    "piano": ("pianos",),
    "picture": ("pictures",),
    "pillar": ("pillars",),
    "pillow": ("pillows",),
    "pipe": ("pipes",),
    "pizza box": ("pizza boxes",),
    "plant": ("plants", "potted plant", "potted plants"),
    "plastic container": ("plastic containers",),
    "plate": ("plates",),
    "poster": ("posters",),
    "power outlet": ("outlet", "outlets", "power outlets"),
    "printer": ("printers",),
    "radiator": ("radiators",),
    "recycling bin": ("recycling bins", "recycle bin", "recycle bins"),
    "refrigerator": ("refrigerators", "fridge", "fridges"),
    "shelf": ("shelves",),
    "shoe": ("shoes",),
    "shower curtain": ("shower curtains",),
    "shower door": ("shower doors",),
    "shower wall": ("shower walls",),
    "sink": ("sinks",),
    "slipper": ("slippers",),
    "soap dispenser": ("soap dispensers",),
    "sock": ("socks",),
    "sofa": ("sofas", "couch", "couches"),
    "sofa chair": ("sofa chairs",),
    "stairs": ("stair",),
    "step stool": ("step stools", "stepstool"),
    "stool": ("stools",),
    "suitcase": ("suitcases",),
    "table": ("tables",),
    "telephone": ("telephones", "phone", "phones"),
    "toilet": ("toilets",),
    "towel": ("towels",),
    "trash can": (
        "trash cans", "trashcan", "trashcans", "trash bin", "trash bins", "garbage bin", "garbage bins", "garbage can",
        "garbage cans", "waste bin", "wastebasket", "waste basket", "dustbin", "rubbish bin",
    ),
    "tv": ("tvs", "television", "televisions", "tv screen"),
    "tv stand": ("television stand", "tv stands"),
    "wall": ("walls",),
    "wardrobe": ("wardrobes", "wardrobe closet"),
    "washing machine": ("washing machines", "clothes washer"),
    "water bottle": ("water bottles",),
    "whiteboard": ("whiteboards", "white board", "white boards"),
    "window": ("windows",),
    "windowsill": ("window sill", "window sills", "windowsills"),
}  # fmt: skip

_CATEGORY_OF = {label: category for category, labels in _SYNONYMS.items() for label in labels}

# Parts of the building, and labels that name nothing in particular: no questions ask about them.
STRUCTURAL = frozenset({
    "wall", "floor", "ceiling", "object", "unknown", "remove", "unannotated", "structure", "otherstructure",
    "other structure", "otherfurniture", "other furniture", "otherprop", "other prop", "column", "pillar", "beam",
    "ledge", "ceiling beam", "half wall", "wall beam", "door frame", "door wall", "closet wall", "pantry wall",
    "closet floor", "closet ceiling", "bath walls", "shower wall", "shower floor", "staircase", "stairs", "stair rail",
    "railing", "rail", "handrail", "windowsill", "window frame", "baseboard", "molding", "doorway", "entrance",
})  # fmt: skip


def category_of(raw_label: str) -> str:
    """The category of a raw label: lower case, single spaces, synonyms joined; "" for an empty label.

    Accents are part of their letters (Unicode's NFC): two labels that look the same are the same.
    """
    label = " ".join(unicodedata.normalize("NFC", raw_label).lower().split())
    return _CATEGORY_OF.get(label, label)


def is_structural(category: str) -> bool:
    """Whether a category (from `category_of`) is part of the building or names nothing in particular."""
    return category in STRUCTURAL
