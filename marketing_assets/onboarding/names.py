"""What exports of shops call things: names of columns and of event types, by what they mean here.

What belongs here: lists of names, best first, and comparing names. What does not: looking at values (values.py).
"""

from __future__ import annotations

import functools
import re
import unicodedata


def _words(text: str) -> list[str]:
    return text.split()


TIMES = _words(
    "event_at event_time event_timestamp timestamp event_datetime occurred_at order_purchase_timestamp "
    "unix_review_time ts datetime date_time server_time visit_time time created_at creation_time order_time "
    "order_date_time invoice_date_time invoice_date purchase_date order_date purchase_time transaction_date "
    "transaction_time trans_date sale_date sales_date review_time review_date review_creation_date paid_at "
    "action_time date_added date_add date_placed created event_date calendar_date date day dt t_dat order_day datum bestelldatum "
    "kaufdatum rechnungsdatum belegdatum zeitstempel zeitpunkt date_commande fecha fecha_pedido data_pedido data_ordine data_zamowienia "
    "besteldatum orderdatum 时间 日期 下单时间 支付时间 "
    "订单日期 行为时间"
)
STARTS = _words(
    "start_date start starts starts_at begin_date begin begins begins_at date_from from_date from valid_from first_day "
    "effective_from effective_date effective since valid_since gueltig_seit gültig_seit seit depuis "
    "beginn startdatum gueltig_ab gültig_ab von date_debut debut début fecha_inicio inicio desde data_inicio 开始日期 开始时间"
)
ENDS = _words(
    "end_date end ends ends_at finish_date finish date_to to_date to until valid_to valid_until valid_through last_day "
    "promo_end promotion_end enddatum ende gueltig_bis gültig_bis bis date_fin fin fecha_fin hasta data_fim 结束日期 结束时间"
)
"""First and last day of what holds for a range of days."""
CLOCKS = _words(
    "time event_hour order_time event_time transaction_time trans_time sale_time hour_minute clock purchase_time "
    "uhrzeit zeit heure hora 时刻"
)

EVENTS: dict[str, list[str]] = {
    "user_id": _words(
        "user_id user customer_id customer client_id client visitor_id visitor member_id member shopper_id account_id "
        "buyer_id buyer reviewer_id uid cust_id customer_no customer_number full_visitor_id person_id household_key "
        "household_id contact_id customer_unique_id user_pseudo_id msno id_customer buyer_username anonymous_id email customer_email "
        "billing_email email_billing kundennummer kundennr kunden_id kunde client_numero id_client code_client cliente id_cliente "
        "codigo_cliente codice_cliente klantnummer klant_id klant id_klienta klient kundnummer 用户id 用户 客户id 会员id 客户编号"
    ),
    "item_id": _words(
        "item_id product_id sku stock_code asin article_id article_no article item product goods_id upc ean gtin "
        "material variant_id variant_sku lineitem_sku product_code product_sku item_code prod_id iid pid parent_asin item_nbr "
        "book_id isbn product_number item_number id_product listing_id product_handle lineitem_name product_name artikelnummer artikelnr "
        "artikel produkt_id produktnummer article_reference reference producto id_producto referencia produto codigo_produto "
        "codice_articolo articolo kod_produktu produkt 商品id 商品编号 商品 产品id"
    ),
    "event_type": _words(
        "event_type event behavior_type behavior behaviour action_type action event_name interaction_type interaction "
        "activity_type activity type kind operation order_status financial_status status aktion ereignis evenement "
        "evento accion 行为类型 行为 事件类型"
    ),
    "event_id": _words("event_id event_uuid row_id line_id order_line_id order_item_id review_id"),
    "session_id": _words("session_id session user_session visit_id ga_session_id sid session_key"),
    "order_id": _words(
        "order_id order_number order_no order invoice_no invoice_id invoice invoice_number transaction_id "
        "transaction_no basket_id receipt_id receipt_no receipt bill_no bill_id sale_id purchase_id checkout_id "
        "id_order bestellnummer bestellnr bestell_id rechnungsnummer belegnummer numero_commande n_commande no_commande commande "
        "pedido id_pedido numero_pedido no_pedido n_pedido numero_ordine n_ordine ordine bestelnummer ordernummer numer_zamowienia "
        "订单号 订单id 订单编号"
    ),
    "quantity": _words(
        "quantity qty units units_sold unit_sales quantity_sold order_quantity lineitem_quantity pieces "
        "number_of_units sales_quantity quantity_ordered quantity_purchased qty_ordered qty_sold units_ordered ordered_quantity "
        "product_qty item_qty item_count items_count item_quantity move pcs menge anzahl stueckzahl stückzahl quantite cantidad quantidade "
        "quantita aantal ilosc antal 数量 购买数量 n"
    ),
    "unit_price": _words(
        "unit_price price item_price product_price price_per_unit lineitem_price selling_price sale_price sell_price "
        "unit_cost_price retail_price price_each net_price sold_for item_cost preis einzelpreis stueckpreis stückpreis verkaufspreis "
        "prix prix_unitaire precio precio_unitario preco preco_unitario prezzo prezzo_unitario prijs stuksprijs cena pris 单价 价格 售价"
    ),
    "discount": _words("discount discount_amount line_discount coupon_discount lineitem_discount coupon_amount total_discount"),
    "rating": _words(
        "rating overall stars star_rating review_score review_rating score note grade bewertung sterne note_client "
        "calificacion 评分"
    ),
    "review_text": _words(
        "review_text review_body review text comment comments review_comment_message review_content content body "
        "bewertungstext rezension kommentar avis commentaire comentario 评论 评价 评论内容"
    ),
    "dwell_seconds": _words("dwell_seconds dwell_time dwell time_on_page duration_seconds view_seconds"),
    "search_query": _words("search_query search_term query search_text search keyword"),
    "device": _words("device device_type device_category platform user_agent_type"),
    "channel": _words("channel sales_channel traffic_source utm_source marketing_channel source_medium utm_medium medium"),
    "location_id": _words(
        "location_id store_id store store_nbr store_code shop_id shop warehouse_id warehouse branch outlet region_id"
    ),
}
SUMS = r"(Total|TOTAL|Grand total|Gesamt|Summe|Totaux|Totale|Totaal)(?![^\s:,-])"
"""What rows begin with that add up the others."""
SESSIONS_OF_ONE = ("ga_session_id", "ga_session_number", "visit_number", "session_number")
"""Sessions that are numbered user by user."""
TOTALS = _words(
    "revenue line_total total_price total_amount sales_value sales_amount net_amount gross_amount amount sales "
    "row_total item_total turnover total dollar_value order_total total_sales value paid_price order_value umsatz betrag summe gesamt "
    "gesamtpreis montant montant_ttc montant_ht total_ttc importe valor_total importo totale totaal bedrag wartosc belopp "
    "金额 销售额 总价 实付金额"
)
COUNTS = ("number_of_", "nb_", "num_", "n_", "count_of_")

IMPRESSIONS: dict[str, list[str]] = {
    "is_clicked": _words("is_clicked clicked click is_click has_clicked click_flag"),
    "placement_id": _words(
        "placement_id placement slot_id slot ad_slot zone_id zone widget widget_id placement_name ad_position_id banner_pos"
    ),
    "creative_id": _words("creative_id creative ad_id banner_id ad"),
    "item_id": EVENTS["item_id"],
    "impression_id": _words("impression_id display_id bid_id exposure_id show_id"),
    "opportunity_id": _words("opportunity_id request_id auction_id"),
    "user_id": EVENTS["user_id"],
    "audience_id": _words("audience_id audience segment_id ad_set_id"),
    "campaign_id": _words("campaign_id campaign campaign_name"),
    "position": _words("position rank slot_position pos"),
    "policy_id": _words("policy_id policy algorithm variant"),
    "logging_propensity": _words("logging_propensity propensity_score propensity pscore probability"),
    "spend": _words("spend cost paying_price price_paid cpm_cost"),
    "is_converted": _words("is_converted converted conversion is_conversion purchased"),
    "conversion_value": _words("conversion_value conv_value revenue"),
    "is_holdout": _words("is_holdout holdout control_group"),
}
SHOWN = _words("shown_at impression_time impression_at served_at") + TIMES

AD_REPORTS: dict[str, list[str]] = {
    "date": _words("date day by_day reporting_starts reporting_date report_date segments_date date_start stat_date week_start"),
    "campaign_id": _words("campaign_id campaign xyz_campaign_id campaign_name fb_campaign_id campaign_key"),
    "impressions": _words("impressions impr imps views shows"),
    "clicks": _words("clicks link_clicks clicks_all all_clicks clicks_destination destination_clicks"),
    "spend": _words("spend cost spent amount_spent ad_spend costs cost_micros total_spend"),
    "creative_id": _words("creative_id ad_id creative ad ad_name"),
    "placement_id": _words("placement_id placement network publisher_platform"),
    "hour": ["hour", "hour_of_day"],
    "audience_id": _words("audience_id audience ad_set_id adset_id ad_group_id ad_group adset_name"),
    "conversions": _words("conversions purchases approved_conversion results conversion total_conversion orders"),
    "conversion_value": _words("conversion_value conv_value purchase_value purchases_conversion_value revenue total_conv_value"),
}

ITEMS: dict[str, list[str]] = {
    "item_id": EVENTS["item_id"] + ["id"],
    "title": _words(
        "title product_title product_name item_name lineitem_name prod_name name descrip description product_description "
        "lineitem_name item_title bezeichnung artikelbezeichnung produktname artikelname designation libelle nombre "
        "nombre_producto descripcion descrizione descricao omschrijving benamning nazwa label item product 商品名称 商品标题 名称"
    ),
    "category": _words(
        "category category_code category_name categories product_category product_category_name department department_name "
        "product_type product_group product_group_name product_type_name item_category category_id class family "
        "main_category kategorie warengruppe produktgruppe categorie catégorie categoria 类目 分类 品类"
    ),
    "brand": _words("brand brand_name manufacturer vendor make supplier_brand marke hersteller marque marca 品牌"),
    "unit_price": EVENTS["unit_price"] + _words("variant_price list_price msrp"),
    "unit_cost": _words(
        "unit_cost cost cost_price purchase_price cogs wholesale_price cost_per_item buying_price cost_of_goods "
        "einkaufspreis ek_preis prix_achat costo coste 成本 进价"
    ),
    "stock_on_hand": _words(
        "stock_on_hand stock inventory inventory_quantity on_hand qty_on_hand stock_quantity available_quantity "
        "stock_level variant_inventory_qty inventory_level quantity_available units_in_stock current_quantity bestand lagerbestand "
        "existencias estoque giacenza voorraad 库存 qty quantity menge"
    ),
    "stock_on_order": _words("stock_on_order on_order units_on_order incoming inbound_quantity"),
    "lead_time_days": _words("lead_time_days lead_time supplier_lead_time lead_days lieferzeit"),
    "pack_size": _words("pack_size case_size units_per_case case_pack carton_size"),
    "minimum_order_quantity": _words("minimum_order_quantity moq min_order_quantity min_order_qty"),
}

STOCK_PLACES = EVENTS["location_id"] + _words(
    "location location_name site depot stockroom store_name warehouse_name filiale lagerort standort entrepot magasin almacen tienda magazzino"
)
"""Where stock lies; in events, a location may be where a customer lives."""

CONTACTS: dict[str, list[str]] = {
    "user_id": EVENTS["user_id"] + ["id"],
    "email": _words("email e_mail email_address customer_email mail"),
    "phone": _words("phone phone_number telephone mobile mobile_number tel"),
    "country": _words("country country_code billing_country"),
    "has_marketing_consent": _words(
        "has_marketing_consent marketing_consent accepts_marketing accepts_email_marketing consent opt_in "
        "newsletter email_opt_in subscribed"
    ),
}
CAMPAIGNS: dict[str, list[str]] = {
    "campaign_id": _words("campaign_id campaign id"),
    "start_date": STARTS,
    "end_date": ENDS,
    "budget": _words("budget daily_budget total_budget amount"),
    "budget_period": _words("budget_period budget_type period"),
    "objective": ["objective", "goal"],
}
DRIVERS: dict[str, list[str]] = {
    "is_promotion": _words("is_promotion promotion onpromotion on_promotion promo is_promo promo_flag"),
    "is_available": _words("is_available available in_stock is_in_stock open is_open"),
}
PLANNED: dict[str, list[str]] = {
    "location_id": EVENTS["location_id"],
    "unit_price": EVENTS["unit_price"] + _words("regular_price promo_price new_price"),
    "planned_ad_spend": _words("planned_ad_spend ad_spend_planned planned_spend ad_budget"),
    **DRIVERS,
}
MARKET_DAYS: dict[str, list[str]] = {
    "is_holiday": _words("is_holiday holiday public_holiday bank_holiday state_holiday national_holiday feiertag ferie"),
    "is_promotion": DRIVERS["is_promotion"],
}
KNOWN = _words("known_at known known_since known_from announced_at announced published_at published planned_at decided_at")
"""When a plan of prices, promotions or holidays was told."""
PROMOTIONS = frozenset(_words("promotion promotions promo promos aktionen angebote promociones"))
PLANS = PROMOTIONS | frozenset(_words("price prices pricing driver drivers item_drivers preise prix precios"))
CHANGES = frozenset(_words("change changes history historie changements historique cambios"))
HOLIDAYS = frozenset(_words("holiday holidays feiertage feiertag feries festivos"))
SCHOOL = frozenset(_words("school schools schulferien ferien vacances vacaciones"))
CATALOGUES = frozenset(
    _words("product products catalog catalogue items stock stocks inventory variants artikel produkte lager lagerbestand bestand productos produits")
)
CALENDARS = HOLIDAYS | SCHOOL | frozenset(_words("calendar calendars market_days kalender calendrier"))
"""Words in the names of files that hold such plans."""
LISTS = _words(
    "items line_items lineitems products lines order_lines order_items order_products orderlines order_details positions contents articles "
    "cart_items basket_items shown_items positionen artikel produkte lignes articulos productos itens 商品列表 商品明细"
)
"""Lists in the rows of nested files whose elements are what was bought or seen."""
CURRENCIES = _words("currency currency_code presentment_currency")
COUNTRIES = _words("country country_name country_code billing_country shipping_country ship_country store_country market")

_TYPE_NAMES: dict[str, str] = {
    "view_item": (
        "view_item view views viewed pv page_view pageview page_views product_view product_viewed view_product detail "
        "view_detail item_view product_detail viewed_item visit click_detail browse product_page_view view_item_page product_clicked "
        "detail_view impression_detail click clicks clicked product_click item_page_view 浏览 点击 ansicht"
    ),
    "search": "search searches searched view_search_results site_search product_search products_searched search_performed query 搜索",
    "add_to_wishlist": (
        "add_to_wishlist wishlist fav favorite favourite favorites favourites like bookmark wish save_item "
        "add_favorite collect product_added_to_wishlist wishlist_product_added added_to_wishlist 收藏"
    ),
    "add_to_cart": (
        "add_to_cart cart carts addtocart add_cart atc basket add_to_basket added_to_cart cart_add product_added "
        "add_to_bag add bag 加购 加入购物车 warenkorb"
    ),
    "begin_checkout": (
        "begin_checkout checkout initiate_checkout initiatecheckout checkout_started started_checkout start_checkout checkout_start begincheckout"
    ),
    "purchase": (
        "purchase purchases purchased buy bought order orders ordered transaction transactions sale sales sold "
        "payment paid completed complete delivered shipped fulfilled invoiced approved order_completed "
        "order_placed checkout_completed pay invoice invoices lines order_items line_items orderlines order_lines "
        "processing 购买 下单 "
        "支付 kauf bestellung bestellungen"
    ),
    "refund": (
        "refund refunds refunded order_refunded refunded_order return returns returned partially_refunded chargeback credit_note credit_notes "
        "cancellation 退款 退货 retoure retouren storno"
    ),
    "review": (
        "review reviews reviewed product_reviewed rate rating ratings rated feedback write_review comment comments 评价 评论 bewertung bewertungen"
    ),
}
LEFT_OUT = _words(
    "remove_from_cart removefromcart remove_cart remove removed_from_cart delete cart_remove unfav dislike "
    "remove_from_wishlist impression impressions show exposure cancelled canceled voided void unavailable abandoned "
    "failed expired pending login logout session_start first_visit scroll user_engagement signup sign_up home "
    "landing view_item_list select_item view_promotion select_promotion view_cart add_payment_info add_shipping_info "
    "file_download form_start form_submit video_start video_progress video_complete product_list_viewed product_list_filtered "
    "product_removed promotion_viewed promotion_clicked cart_viewed checkout_step_viewed checkout_step_completed payment_info_entered "
    "order_updated order_cancelled coupon_entered coupon_applied coupon_denied coupon_removed product_shared cart_shared "
    "wishlist_product_removed active_on_site viewed_cart"
)
"""Event types that mean nothing here: rows of them are left out by name, everything else unknown is refused by name."""


_VAGUE = frozenset(
    _words(
        "name description type score code label content body class family group event value store total note user "
        "item client order kind text family status number class page source make period goal title"
    )
)
"""Words that mean something alone, but nothing at the end of a longer name: a reviewer_name is no title."""


def plain(name: str) -> str:
    """'Customer ID', 'customerId', 'CUSTOMER_ID ' -> 'customer_id', 'N° Référence' -> 'n_reference'."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", _bare(name.strip()))
    spaced = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", spaced)
    return re.sub(r"[\W_]+", "_", spaced.lower()).strip("_")


@functools.cache
def _bare(text: str) -> str:
    """Without accents."""
    return "".join(sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))


def _squeezed(name: str) -> str:
    return name.replace("_", "")


def likeness(name: str, known: list[str]) -> float:
    """How well a column's name says it is one of these: 1 to 0.5 by rank for the same name, less where words were added, 0 for none."""
    own = plain(name)
    bare = re.sub(r"_(usd|eur|gbp|inr|cny|jpy|cad|aud|chf|sek|pln|brl)$", "", own)
    best = 0.0
    for place, candidate in enumerate(map(_bare, known)):
        rank = 1 - 0.5 * place / max(len(known), 20)
        if own == candidate or bare == candidate or _squeezed(own) == _squeezed(candidate):
            best = max(best, rank)
        elif "_" in candidate and re.search(rf"(^|_){candidate}(_|$)", own):
            best = max(best, rank - 0.3)
        elif len(candidate) > 3 and own.endswith("_" + candidate) and candidate not in _VAGUE:
            best = max(best, rank - 0.45)
    return best


def event_type_of(value: str) -> str | None:
    """The contract's event type a shop's word means, '' for one that is left out, None where the word says nothing."""
    word = plain(value)
    for meaning, words in _TYPE_NAMES.items():
        if word in words.split() or _squeezed(word) in (_squeezed(one) for one in words.split()):
            return meaning
    if word in LEFT_OUT or _squeezed(word) in (_squeezed(one) for one in LEFT_OUT):
        return ""
    return None


def event_type_in(path: str) -> str | None:
    """The event type a file's name speaks of: 'exports/returns_2026.csv' -> refund."""
    for word in reversed([part for part in re.split(r"[^a-z]+", path.lower()) if part]):
        found = event_type_of(word)
        if found and word not in ("add", "like", "query", "lines", "complete", "paid", "comment", "feedback", "rate", "save"):
            return found
    return None
