import { cover } from "./covers.js";

const $ = id => document.getElementById(id);
const dollars = amount => amount.toLocaleString("en-US", { style: "currency", currency: "USD" });
const cents = amount => Math.round(amount * 100) / 100;
const kept = (key, otherwise) => { try { return JSON.parse(localStorage.getItem("shop." + key)) ?? otherwise; } catch { return otherwise; } };
const keep = (key, value) => { try { localStorage.setItem("shop." + key, JSON.stringify(value)); } catch { /* until the page closes */ } };

headrace.init(JSON.parse($("settings").textContent)); // first: a visit counts even where the products do not load

const products = await (await fetch("/static/products.json")).json();
const productOf = id => products.find(product => product.id === id);
let cart = kept("cart", {}); // product id -> quantity
let customer = kept("customer", null);
let genre = "All";
let buyAfterLogin = false;

// ---- what the page shows
const addButton = product => `<button class="add" data-add="${product.id}" data-track="add-to-cart">Add to cart</button>`;

function showProducts() {
  const genres = ["All", ...new Set(products.map(product => product.genre))];
  $("genres").innerHTML = genres.map(name =>
    `<button data-genre="${name}" data-track="genre-${name.toLowerCase()}" aria-pressed="${name === genre}">${name}</button>`).join("");
  $("products").innerHTML = products.filter(product => genre === "All" || product.genre === genre).map(product => `
    <article class="card">
      <a href="#${product.id}" aria-label="${product.title} by ${product.artist}">${cover(product)}
        <div class="text"><h3>${product.title}</h3><p>${product.artist}</p></div></a>
      <div class="row"><span class="price">${dollars(product.price_usd)}</span>${addButton(product)}</div>
    </article>`).join("");
}

const lines = () => Object.entries(cart).map(([id, quantity]) => ({ ...productOf(id), quantity }));
const total = () => cents(lines().reduce((sum, line) => sum + line.quantity * line.price_usd, 0));

function showCart() {
  $("count").textContent = lines().reduce((sum, line) => sum + line.quantity, 0);
  $("total").textContent = dollars(total());
  $("buy").disabled = !lines().length;
  $("lines").innerHTML = lines().map(line => `
    <li>${cover(line)}<div><h3>${line.title}</h3><span class="muted">${line.quantity} × ${dollars(line.price_usd)}</span>
      <button class="remove" data-remove="${line.id}" data-track="remove-from-cart">Remove</button></div>
      <span class="price">${dollars(cents(line.quantity * line.price_usd))}</span></li>`).join("") ||
    `<li class="empty">Nothing yet. Put a record in.</li>`;
}

const showCustomer = () => { $("account").textContent = customer ? `Log out ${customer.name}` : "Log in"; };

function showDetail() { // the part after # names the record that is looked at
  const product = productOf(location.hash.slice(1));
  if (!product) return $("detail").close();
  $("detail").innerHTML = `<div class="split">${cover(product)}<div class="text">
    <button class="close" data-close aria-label="Close">×</button>
    <h2>${product.title}</h2><div>${product.artist}</div><div class="muted">${product.genre}, ${product.year}</div>
    <div class="price">${dollars(product.price_usd)}</div>${addButton(product)}</div></div>`;
  if (!$("detail").open) $("detail").showModal();
}

function toast(text) {
  $("toast").textContent = text;
  $("toast").classList.add("shown");
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => $("toast").classList.remove("shown"), 3500);
}

// ---- what a visitor does
function add(id) {
  const { title, price_usd } = productOf(id);
  cart[id] = (cart[id] ?? 0) + 1;
  keep("cart", cart);
  headrace.track("add_to_cart", { product_id: id, name: title, quantity: 1, price_usd });
  showCart();
  toast(`${title} is in your cart`);
}

function logIn(email) {
  const name = email.split("@")[0];
  customer = { id: "web-" + fingerprint(email.trim().toLowerCase()), name };
  keep("customer", customer);
  headrace.identify(customer.id, { email, name });
  headrace.track("login", { method: "password" });
  showCustomer();
  if (buyAfterLogin) buy();
}

function logOut() {
  customer = null;
  keep("customer", null);
  headrace.reset();
  showCustomer();
}

function buy() {
  buyAfterLogin = !customer;
  if (!customer) return $("login").showModal();
  const bought = lines();
  headrace.track("purchase", {
    quantity: bought.reduce((sum, line) => sum + line.quantity, 0),
    amount_usd: total(),
    order_id: "o-" + Date.now().toString(36) + Math.random().toString(36).slice(2, 6),
    products: bought.map(({ id, title, quantity, price_usd }) => ({ product_id: id, name: title, quantity, price_usd })),
  });
  cart = {};
  keep("cart", cart);
  showCart();
  $("cart").close();
  toast(`Thank you, ${customer.name}. Your records are on their way.`);
}

const fingerprint = text => { // FNV-1a, 64 bits: the same customer has the same id in every browser, and no address is in it
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(text)) hash = ((hash ^ BigInt(byte)) * 0x100000001b3n) & 0xffffffffffffffffn;
  return hash.toString(16).padStart(16, "0");
};

document.addEventListener("click", ({ target }) => {
  const at = target.closest("button");
  if (at?.dataset.add) add(at.dataset.add);
  else if (at?.dataset.genre) { genre = at.dataset.genre; showProducts(); }
  else if (at?.dataset.remove) { delete cart[at.dataset.remove]; keep("cart", cart); showCart(); }
  else if ((at && "close" in at.dataset) || target.matches("dialog")) target.closest("dialog").close();
});
$("open-cart").addEventListener("click", () => $("cart").showModal());
$("buy").addEventListener("click", buy);
$("account").addEventListener("click", () => customer ? logOut() : $("login").showModal());
$("login-form").addEventListener("submit", event => logIn(new FormData(event.target).get("email")));
$("detail").addEventListener("close", () => { if (location.hash) history.pushState(null, "", location.pathname); });
addEventListener("hashchange", () => { showDetail(); headrace.page({ title: productOf(location.hash.slice(1))?.title ?? document.title }); });

showProducts();
showCart();
showCustomer();
showDetail();
