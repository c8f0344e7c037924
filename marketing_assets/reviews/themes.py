"""What a complaint is about: a weighted vocabulary per theme, English and Chinese.

What belongs here: the vocabularies and counting them. What does not: whether a review is a complaint (complaints.py).

Each theme has strong expressions, which say it by themselves, and weak ones, which only point that way. The theme with
most points is the ticket's; a complaint without any is 'other'.
"""

from __future__ import annotations

import polars as pl

from marketing_assets.schemas import COMPLAINT_THEMES

STRONG, WEAK = 3, 1

VOCABULARY: dict[str, dict[int, tuple[str, ...]]] = {
    "delivery": {
        STRONG: (
            r"never (?:arrived|came|received|got|showed|delivered)",
            r"(?:not|never|no|hardly|barely) (?:been )?(?:arrived?|received?|delivered|shipped)",
            r"(?:arrived|came|delivered|shipped) (?:\w+ )?(?:late|weeks?|days? late)|late delivery|slow (?:shipping|delivery)",
            r"(?:shipping|delivery|shipment) (?:was |is |took |took over |time )*(?:late|slow|delayed|forever|terrible|awful|bad|long)",
            r"lost (?:package|parcel|in (?:the )?(?:mail|post|transit))",
            r"took (?:over |more than |almost |about |nearly )?(?:\w+ )?(?:weeks?|months?) to (?:arrive|come|get|ship|deliver)",
            r"sent (?:me )?(?:the |a )?wrong|wrong (?:item|product|order|one|color sent|size sent)",
            r"(?:item|part|piece|bottle|half|order)s? (?:was |were |is )?missing|missing (?:item|part|piece|from)|where is my",
            r"still waiting|没有?收到|未收到|迟迟不|发错|少发|漏发|丢件|延误|物流(?:太|很|特别|非常)?慢",
            r"快递(?:太|很|特别|非常)?慢|发货(?:太|很|特别|非常)?慢|送货(?:太|很)?慢",
        ),
        WEAK: (
            r"deliver\w*|shipp\w*|shipment|courier|parcel|packag\w*|packed|tracking|carrier|arriv\w*|post office|in the mail",
            r"delay\w*|box was|waited|waiting|物流|快递|发货|送货|配送|包裹|包装|签收|等了",
        ),
    },
    "defect": {
        STRONG: (
            r"defect\w*|broken|broke|faulty|(?:not|never|no|hardly|barely) work\w*|stopped working|quit working",
            r"malfunction\w*|leak\w*|crack\w*|fell apart|falling apart|falls apart|ripped|tore\b|torn|shattered|snapped|burst",
            r"scratch\w*|dent(?:s|ed)?|chipped|stain(?:s|ed)?|bent|wobbl\w*|came (?:off|loose)|fell off",
            r"loose (?:parts?|screws?|threads?|seams?)|(?:will|does) not (?:turn on|charge|start|open|close)",
            r"dead on arrival|(?:poor|bad|low|terrible|horrible|cheap|inferior) quality|poorly made|cheaply made|flimsy",
            r"damaged|expired|mou?ldy|rust\w*|(?:already|been) (?:used|opened)|not sealed|no seal|unsealed",
            r"seal (?:was )?(?:broken|missing)|tampered|came apart|rancid|contaminat\w*|useless",
            r"(?:gave|caused|broke out|made) (?:me |my \w+ )?(?:\w+ )?(?:rash|hives|burn\w*|itch\w*|sick)|allergic",
            r"burn(?:ed|t|s)? my|irritat\w*|坏了|坏的|破损|破了|质量(?:太|很|非常|特别|真)?差|质量问题|瑕疵|缺陷|不能用",
            r"没法用|用不了|无法使用|开裂|裂了|漏(?:水|液|气|油)|掉色",
            r"起球|断了|过期|变质|过敏|失灵|没反应|没有?效果",
        ),
        WEAK: (
            r"quality|clog\w*|stuck|sticky|rash|itch\w*",
            r"smell(?:s|ed)? (?:bad|awful|terrible|horrible|weird|funny|off|like)|awful|terrible|horrible|junk|garbage|trash",
            r"crap|does not (?:last|hold|stay|help)|did not (?:last|hold|stay|help|do)|does nothing|did nothing|watery|runny",
            r"dr(?:ies|ied) out|fail(?:s|ed)?|problem|质量|做工|材质|味道|异味|难闻|刺鼻|问题|不好用",
        ),
    },
    "size": {
        STRONG: (
            r"(?:too|way too|very|so|really|extremely) (?:small|big|large|tight|loose|short|long|narrow|wide|tiny|huge)",
            r"(?:not|never|no|hardly|barely) fit",
            r"runs? (?:very |really |a (?:bit|little|size) )?(?:small|large|big|short|long|tight)",
            r"fits? (?:small|tight|loose|large)|wrong size|(?:smaller|bigger|larger|shorter|longer|tighter|looser) than",
            r"size (?:is |was )?(?:off|wrong|chart)|sizing|size (?:too )?(?:small|big|large)|尺码不(?:对|准|合适|符)|偏大|偏小|太大|太小|太紧|太松",
            r"太长|太短|太宽|太窄|不合身|不合适|穿不(?:上|下|进)|大了|小了",
        ),
        WEAK: (r"\bsizes?\b|\bfits?\b|fitting|tiny|length|width|dimensions?|inches|\bcm\b|尺码|尺寸|大小|码数|合身",),
    },
    "price": {
        STRONG: (
            r"over ?priced|too expensive|very expensive|so expensive|too pricey",
            r"(?:not|never|no|hardly|barely) (?:\w+ ){0,2}worth|waste of (?:\w+ )?money|wasted? (?:my|your|the) money",
            r"rip ?-?off|price (?:is |was |has )?(?:too |so |very )?(?:high|doubled|increased|went up|gouging)",
            r"(?:cheaper|less) (?:at|elsewhere|in|somewhere)|charged (?:me )?(?:twice|double|more|extra)",
            r"too much (?:money )?for|hidden (?:fee|cost|charge)s?|太贵|贵了|不值|不划算|浪费钱|降价|差价|多收",
            r"乱收费|性价比(?:太|很)?低|坑钱",
        ),
        WEAK: (r"expensive|pricey|price[sd]?|cost[s]?|money|cheaper|charged?|\$\d|价格|价钱|贵|钱|性价比",),
    },
    "description": {
        STRONG: (
            r"(?:not|never|no|hardly|barely) (?:\w+ )?(?:as|like|what|match\w*) (?:\w+ ){0,3}"
            r"(?:described|description|advertised|pictured?|shown|expected|photos?|ordered|listed)",
            r"(?:not|never|no|hardly|barely) match\w*|mis ?lead\w*|false (?:advertis\w*|claims?|description)|falsely",
            r"(?:description|listing|page|site|website|ad|photo|picture)s? (?:says?|said|states?|claim(?:s|ed)?|show(?:s|ed)?|promis\w+)",
            r"listed as|misled|mislabell?ed|counterfeit|fake",
            r"(?:not|never|no|hardly|barely) (?:\w+ )?(?:authentic|genuine|original|the real|real)|nothing like",
            r"(?:looks?|smells?|is|was|color|colour|product|totally|completely|very|item) different (?:from|than|to)",
            r"different (?:from|than) (?:the )?(?:pictur\w*|photos?|description|what)",
            r"wrong (?:colou?r|description|picture|scent|model)",
            r"(?:colou?r|shade) (?:is |was )?(?:\w+ )?(?:off|wrong|different)|advertised as|claims? to|claimed|deceptive",
            r"deceiving|(?:not|never|no|hardly|barely) (?:the )?same (?:as|product|formula|one|thing)",
            r"(?:changed|new) (?:the )?formula|描述不符|与描述|与图片|图片不符|照片不符|色差|虚假|假货|假的|货不对板|夸大",
            r"误导|不是正品|跟图片|和图片|跟描述|和描述|实物(?:与|和|跟)",
        ),
        WEAK: (
            r"description|described|pictur\w*|photos?|advertis\w*|expect\w*|colou?r|claims?|authentic|original|formula|描述|图片",
            r"照片|颜色|实物|宣传|想象",
        ),
    },
}
"""Theme -> weight -> expressions, alternatives in lines of regular expressions over lower-case text."""

_CONTRACTED = r"\b(do|does|did|is|was|are|were|ca|wo|could|would|should|has|have|had)n'?t\b"
_DENIALS = r"not|no|never|nothing|without any"
_DENIED_FAULTS = (
    r"broken|damaged?|late|expensive|overpriced|defective|defects?|delay(?:ed|s)?|leak(?:s|ing|ed)?|cracks?|problems?|issues?|fake"
    r"|misleading|flimsy|expired|too (?:small|big|large|tight|loose|long|short)"
)
_DENIED = (
    rf"\b(?:{_DENIALS})(?: at all| too| any| a| that| been| really| even)? (?:{_DENIED_FAULTS})\b"
    r"|(?:没有?|不)(?:坏|破损|色差|瑕疵|贵|异味|问题|延误)"
)
"""Denials: 'not damaged' is no complaint of damage."""
_TOO_LONG = r"\b(?:took|takes?|taking|taken|waited|waiting|wait) (?:\w+ )?too long\b"
"""Time, not length."""
_REMEDIES = r"money back|return(?:ed|ing)? (?:it|them|this)|refund\w*|reimburs\w*|退钱|退款"
"""What people ask for, whatever went wrong: says nothing of the price."""


def _pattern(lines: tuple[str, ...]) -> str:
    """Alternatives as one expression: Latin ones begin and end at the border of a word, Chinese has no such borders."""
    parts = [part for line in lines for part in _split(line)]
    chinese = [part for part in parts if any("\u4e00" <= letter <= "\u9fff" for letter in part)]
    latin = [part for part in parts if part not in chinese]
    return "|".join(filter(None, [rf"\b(?:{'|'.join(latin)})(?:\b|$)" if latin else "", "|".join(chinese)]))


def _split(pattern: str) -> list[str]:
    """Alternatives at the top level of a pattern."""
    parts, depth, current = [], 0, ""
    for letter in pattern:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "|" and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += letter
    return [*parts, current]


_SAFETY = _pattern(
    (
        r"rash(?:es)?|hives|allerg\w+|burn(?:s|ed|t|ing)?|blister\w*|bleed\w*|bled|infect\w+|hospital|emergency room",
        r"doctor|dermatologist|injur\w+|chok(?:e|ed|ing)|caught fire|on fire|smoke|sparks?|electric(?:al)? shock|poison\w*",
        r"toxic|swell\w*|swollen|vomit\w*|chemical burn",
        r"过敏|红肿|烫伤|起火|着火|冒烟|触电|受伤|流血|医院|中毒|起泡|溃烂",
    )
)
_LEGAL = _pattern(
    (
        r"lawyer|attorney|lawsuit|sue|suing|small claims|consumer protection|trading standards|chargeback|fraud\w*|scam\w*",
        r"report(?:ed|ing)? (?:you|this|them|the seller)",
        r"律师|起诉|法院|消协|12315|工商|诈骗|骗子",
    )
)


def theme_points(text: pl.Series) -> pl.DataFrame:
    """Points per theme (columns of COMPLAINT_THEMES without 'other'), is_safety and is_legal; nulls count as empty.

    text: reviews as written. Every distinct kind of expression counts each time it occurs, at most three times.
    """
    plain = text.fill_null("").str.to_lowercase().str.replace_all("’", "'", literal=True).str.replace_all(_CONTRACTED, "${1} not")
    frame = pl.DataFrame({"text": plain})
    frame = frame.with_columns(
        plain=pl.col("text")
        .str.replace_all(_DENIED, " ")
        .str.replace_all(_REMEDIES, " ")
        .str.replace_all(_TOO_LONG, " arrived late ")
    )
    points = {
        theme: pl.sum_horizontal(
            [weight * pl.col("plain").str.count_matches(_pattern(lines)).clip(upper_bound=3) for weight, lines in kinds.items()]
        ).cast(pl.Int64)
        for theme, kinds in VOCABULARY.items()
    }
    return frame.select(**points, is_safety=pl.col("plain").str.contains(_SAFETY), is_legal=pl.col("plain").str.contains(_LEGAL))


def themes_of(text: pl.Series) -> pl.DataFrame:
    """theme, other_themes (comma-separated, null where none), is_safety and is_legal of each review, in order.

    Ties go to the theme named first in COMPLAINT_THEMES. A further theme needs strong words of its own.
    """
    points = theme_points(text)
    names = [name for name in COMPLAINT_THEMES if name != "other"]
    best = pl.max_horizontal(names)
    theme = pl.coalesce([*[pl.when((best > 0) & (pl.col(name) == best)).then(pl.lit(name)) for name in names], pl.lit("other")])
    return (
        points.with_columns(theme=theme)
        .with_columns(
            other_themes=pl.concat_str(
                [pl.when((pl.col(name) >= STRONG) & (pl.col("theme") != name)).then(pl.lit(name)) for name in names],
                separator=",",
                ignore_nulls=True,
            )
        )
        .select(
            "theme", pl.when(pl.col("other_themes") != "").then("other_themes").alias("other_themes"), "is_safety", "is_legal"
        )
    )
