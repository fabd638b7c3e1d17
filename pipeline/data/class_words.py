"""How public collections and labelling teams call the three classes, in fifteen languages.

Case, spaces, `_` and `-` between letters do not count, nor does an accent that was left out. "face" alone is left out
on purpose: it says nothing about a mask.
"""

from __future__ import annotations

_WITH = {
    "en": (
        "mask properly worn; mask worn properly; properly masked; properly worn mask; "
        "correctly masked; correctly worn mask; with face mask; "
        "with mask; mask; masked; facemask; masks; mask on; wearing mask; with facemask; good mask; "
        "mask worn correct; mask worn correctly; correct mask; face with mask; wearing a mask; has mask; "
        "wears mask; mask worn; with a mask"
    ),
    "zh": (
        "带口罩; 带了口罩; 口罩佩戴正确; 口罩佩戴规范; 口罩已戴; 口罩已佩戴; "
        "口罩; 戴口罩; 佩戴口罩; 戴了口罩; 已戴口罩; 有口罩; 有戴口罩; 配戴口罩; 正确佩戴口罩; "
        "規範配戴口罩; 规范佩戴口罩; 正确戴口罩"
    ),
    "hi": ("मास्क है; मास्क लगाए हुए; मास्क लगाया; मास्क; मास्क के साथ; मास्क पहने; मास्क पहना; मास्क पहने हुए"),
    "es": (
        "lleva mascarilla; usa mascarilla; mascarilla puesta; con la mascarilla; cubrebocas; barbijo; "
        "con mascarilla; mascarilla; con tapabocas; tapabocas; con barbijo; con cubrebocas; con máscara; máscara"
    ),
    "ar": (
        "ماسك; مع ماسك; يرتدي ماسك; كمامه; يلبس كمامة; كمامة; بكمامة; مع كمامة; يرتدي كمامة; مع الكمامة; يرتدي الكمامة"
    ),
    "fr": (
        "porte le masque; masque bien porté; masque correct; "
        "avec masque; masque; masqué; porte un masque; masque porté; avec un masque"
    ),
    "pt": ("com a máscara; usa máscara; com máscara; usando máscara; de máscara"),
    "ru": ("человек в маске; лицо в маске; носит маску; в маске; с маской; маска; маска надета; есть маска"),
    "de": (
        "Maske getragen; Gesichtsmaske; mit Gesichtsmaske; trägt eine Maske; Mund-Nasen-Schutz; mit Mund-Nasen-Schutz; "
        "mit Maske; Maske; maskiert; Maske auf; trägt Maske; mit Mundschutz; Mundschutz; Gesicht mit Maske"
    ),
    "ja": (
        "マスク装着; マスク装着あり; マスクを着用; マスクを着用している; マスク着用者; "
        "マスク; マスクあり; マスク有り; マスク着用; マスク有; マスクをしている; マスク着用あり"
    ),
    "tr": ("maske takıyor; maske takmış; maske; maskeli; maske takılı; maske var; maske takan"),
    "id": "masker; dengan masker; pakai masker; bermasker; memakai masker; menggunakan masker",
    "it": (
        "indossa la mascherina; con una mascherina; "
        "mascherina; con mascherina; con la mascherina; maschera; con maschera"
    ),
    "ko": ("마스크 착용자; 마스크 착용함; 마스크; 마스크 착용; 마스크 쓴; 마스크 씀; 마스크 있음"),
    "vi": "khẩu trang; đeo khẩu trang; có khẩu trang; có đeo khẩu trang",
}

_WITHOUT = {
    "en": (
        "with no mask; wearing no mask; face no mask; face with no mask; unmask; mask removed; "
        "mask missing; mask absent; mask free; bare face; maskless face; does not wear mask; "
        "no mask worn; "
        "without mask; no mask; unmasked; mask off; no facemask; not wearing mask; without facemask; "
        "barefaced; non mask; without a mask; not wearing a mask; face without mask; "
        "face no mask detected; no masks; maskless; mask not worn; not masked; w/o mask; wo mask"
    ),
    "zh": (
        "口罩没戴; 口罩未戴; 口罩未佩戴; 口罩没有戴; 没带口罩; 未带口罩; 不带口罩; 没有带口罩; "
        "口罩沒戴; 口罩未配戴; 摘下口罩; "
        "未戴口罩; 没戴口罩; 不戴口罩; 无口罩; 没有口罩; 未佩戴口罩; 没有戴口罩; 没有佩戴口罩; 不佩戴口罩; "
        "無口罩; 沒戴口罩; 沒有戴口罩; 沒有口罩; 未配戴口罩; 無戴口罩"
    ),
    "hi": ("मास्क नहीं है; मास्क नहीं पहने; मास्क नहीं लगाया; मास्क के बिना; बिना मास्क; बिना मास्क के; मास्क नहीं; मास्क नहीं पहना"),
    "es": (
        "no lleva mascarilla; no usa mascarilla; sin la mascarilla; no mascarilla; "
        "mascarilla quitada; sin mascarilla puesta; "
        "sin mascarilla; sin tapabocas; sin barbijo; sin cubrebocas; sin máscara"
    ),
    "ar": (
        "بدون ماسك; بدون كمامه; لا كمامة; لا يلبس كمامة; لا يرتدي ماسك; "
        "بدون كمامة; بلا كمامة; من دون كمامة; لا يرتدي كمامة; بدون الكمامة; لا يرتدي الكمامة"
    ),
    "fr": (
        "ne porte pas de masque; porte pas de masque; masque non porté; masque absent; pas masqué; "
        "sans un masque; masque enlevé; masque retiré; "
        "sans masque; pas de masque; non masqué; sans le masque"
    ),
    "pt": (
        "sem a máscara; não está usando máscara; sem usar máscara; não usando máscara; sem máscara; não usa máscara"
    ),
    "ru": (
        "человек без маски; лицо без маски; маска снята; не носит маску; без масок; маска отсутствует; "
        "без маски; нет маски; маски нет; маска не надета; не в маске"
    ),
    "de": (
        "nicht maskiert; Maske nicht getragen; Maske nicht auf; Maske ab; ohne Gesichtsmaske; "
        "ohne Mund-Nasen-Schutz; kein Mundschutz; "
        "ohne Maske; keine Maske; unmaskiert; maskenlos; ohne Mundschutz; Gesicht ohne Maske; trägt keine Maske"
    ),
    "ja": (
        "マスク未装着; マスク非装着; マスク装着なし; マスク着用なし; マスクしていない; マスクしてない; "
        "マスク不着用; マスクを着用していない; マスク外し; マスク未着用者; "
        "マスクなし; マスク無し; マスク無; マスク未着用; マスクをしていない; ノーマスク; マスク非着用"
    ),
    "tr": (
        "maskesi yok; maske takmamış; maske takılmamış; maskesiz yüz; "
        "maskesiz; maske yok; maske takmayan; maske takılı değil; maske takmıyor"
    ),
    "id": (
        "tak pakai masker; tidak ada masker; tanpa menggunakan masker; masker dilepas; non masker; "
        "tanpa masker; tidak memakai masker; tidak pakai masker; tidak bermasker; tidak menggunakan masker"
    ),
    "it": (
        "senza una mascherina; non indossa la mascherina; "
        "senza mascherina; senza la mascherina; senza maschera; nessuna mascherina"
    ),
    "ko": (
        "마스크 미착용자; 마스크 안함; 마스크 안 함; 마스크 벗음; 마스크 불착용; "
        "마스크 미착용; 마스크 없음; 노마스크; 마스크 안 씀; 마스크 안 쓴; 마스크 쓰지 않음"
    ),
    "vi": "không khẩu trang; không đeo khẩu trang; không có khẩu trang; chưa đeo khẩu trang",
}

_INCORRECT = {
    "en": (
        "improperly masked; mask wrong; mask below nose; mask under nose; mask under chin; "
        "mask on chin; mask incorrectly worn; mask improperly worn; with mask incorrect; "
        "mask not correct; incorrectly worn; "
        "mask worn incorrect; mask weared incorrect; incorrect mask; mask incorrect; incorrect; bad mask; "
        "mask worn incorrectly; wrong mask; improperly worn mask; improper face mask; "
        "incorrectly worn mask; improper mask; mask worn improperly; mask worn wrong; incorrect face mask; "
        "mask weared incorrectly; incorrectly masked; mask not worn correctly; mask not worn properly; "
        "wearing mask incorrectly; improper; incorrectly"
    ),
    "zh": (
        "口罩没有戴好; 口罩未佩戴好; 口罩戴错; 口罩戴错了; "
        "口罩佩戴不正确; 未正确佩戴口罩; 不正确佩戴口罩; 错误佩戴口罩; 口罩佩戴错误; 未规范佩戴口罩; "
        "不规范佩戴口罩; 口罩佩戴不规范; 口罩未戴好; 口罩没戴好; 没戴好口罩; 错误戴口罩; 佩戴口罩不规范; "
        "佩戴口罩不正确; 口罩配戴不正確; 未正確配戴口罩; 口罩沒戴好"
    ),
    "hi": "गलत मास्क; मास्क गलत पहना; गलत तरीके से मास्क; मास्क गलत तरीके से; मास्क ठीक से नहीं पहना",
    "es": (
        "mascarilla mal; mascarilla mal usada; mascarilla bajo la nariz; con mascarilla mal puesta; "
        "mascarilla mal puesta; mascarilla incorrecta; mascarilla mal colocada; mal uso de mascarilla; "
        "tapabocas mal puesto; barbijo mal puesto; cubrebocas mal puesto; uso incorrecto de mascarilla"
    ),
    "ar": (
        "كمامة على الذقن; كمامة تحت الأنف; كمامة بشكل خاطئ; كمامة غير صحيحة; ارتداء خاطئ للكمامة; يرتدي كمامة بشكل خاطئ"
    ),
    "fr": (
        "masque sous le nez; masque baissé; masque sous le menton; masque mal ajusté; "
        "port incorrect du masque; avec masque mal porté; "
        "masque mal porté; masque mal mis; masque incorrect; mal masqué; masque mal placé"
    ),
    "pt": (
        "máscara mal usada; máscara mal ajustada; máscara abaixo do nariz; máscara no queixo; "
        "máscara incorreta; máscara mal colocada; máscara usada incorretamente; "
        "uso incorreto da máscara; máscara errada"
    ),
    "ru": (
        "маска на подбородке; маска под носом; маска спущена; маска надета не правильно; "
        "маска надета неправильно; неправильно надета маска; "
        "маска неправильно; неправильная маска; "
        "неправильно надетая маска"
    ),
    "de": (
        "Maske unter dem Kinn; Maske unterm Kinn; Maske am Kinn; Maske unter Nase; Maske nicht richtig getragen; "
        "Maske falsch; falsch getragene Maske; Maske falsch getragen; Maske falsch aufgesetzt; Maske unter der Nase"
    ),
    "ja": (
        "マスクずれ; マスクズレ; 鼻マスク; マスクを正しく着用していない; "
        "不適切なマスク着用; マスク着用不適切; 誤ったマスク着用; 鼻出しマスク; 顎マスク; あごマスク; "
        "マスク不適切; マスク不適切着用"
    ),
    "tr": (
        "maske çene altında; maske burun altında; maske düzgün değil; "
        "yanlış maske; maske yanlış; hatalı maske; yanlış takılmış maske; maske yanlış takılmış; maske hatalı"
    ),
    "id": (
        "masker di dagu; masker di bawah hidung; "
        "masker salah; salah pakai masker; masker tidak benar; memakai masker salah; masker tidak tepat"
    ),
    "it": (
        "mascherina sotto il naso; mascherina abbassata; mascherina mal indossata; "
        "mascherina errata; mascherina indossata male; mascherina indossata in modo errato; mascherina scorretta"
    ),
    "ko": ("마스크 오착용; 마스크 착용 불량; 마스크 잘못 착용; 잘못된 마스크 착용; 턱스크; 코스크; 마스크 부적절 착용"),
    "vi": "đeo khẩu trang sai; đeo khẩu trang sai cách; khẩu trang sai cách; đeo khẩu trang không đúng cách",
}


def _words(*texts: str) -> tuple[str, ...]:
    return tuple(word.strip() for text in texts for word in text.split(";") if word.strip())


# class: its words
WORDS = {
    "with_mask": _words(*_WITH.values()),
    "without_mask": _words(*_WITHOUT.values()),
    "mask_worn_incorrect": _words(*_INCORRECT.values()),
    "ignore": ("ignore", "dontcare", "ignored", "dont care", "ignore region"),
}

# Any of these within a name may turn its meaning; that "normal" has a "no" costs a suggestion, no more.
NEGATION = _words(
    "no; un; out; off; less; free; bare; miss; lack; absent; never; sin; sans; sem; ohne; kein; "
    "senza; tanpa; tidak; siz; yok; pas; anti; false; zero; empty; remove; neg"
)

# Of a mask that is not worn as it should be.
WRONG = _words("incorrect; wrong; bad; improper; mal; nose; chin; falsch; half; partial; poor; loose")

# With a negation: of such a mask, too, or of none.
RIGHT = _words("correct; proper; well; good; worn")

# What wears the mask: it says nothing about it.
BEARERS = _words("face; faces; person; people; head; human; man; woman; worker; a; the; wearing")

# Within a name: the data set is about masks, and its unknown names are no classes of their own.
ABOUT_MASKS = _words(
    "mask; маск; 口罩; マスク; 마스크; मास्क; كمام; masque; mascar; máscar; mascher; maske; "
    "tapaboca; barbijo; cubreboca; face; gesicht; incorrect; wear; worn"
)

# Whole names that say nothing: of a mask, perhaps.
SAYS_NOTHING = _words(
    "bad; class; correct; default; false; good; incorrect; item; label; neg; negative; no; nok; "
    "none; null; object; objects; off; ok; on; pos; positive; right; target; thing; true; unknown; "
    "with; without; wrong; yes"
)
