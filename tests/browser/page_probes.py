"""Programs that run in a page: they measure contrasts and places, and note images."""

CONTRASTS = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const mix = (colors) => {   // the color of layers, the lowest first
    canvas.clearRect(0, 0, 1, 1);
    for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) => value / 255);
  };
  const luminance = (color) => color
    .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!own || !node.checkVisibility() || node.closest(":disabled, [aria-disabled=true]")) continue;
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.unshift(getComputedStyle(at).backgroundColor);
    const back = luminance(mix(["white", ...layers])), style = getComputedStyle(node);
    const front = luminance(mix(["white", ...layers, style.color]));
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    found.push([ratio, `${node.tagName} ${node.className} ${node.textContent.trim().slice(0, 40)}`]);
  }
  return found;
}"""
"""Returns contrast and description of each element that shows text of its own."""

WATCH_IMAGES = """() => {
  window.seen = [];
  window.places = new Set();
  window.measure = () => {
    places.add(["create", "stage", "use", "last"].map((id) => document.getElementById(id).offsetTop).join());
    return places.size;
  };
  const note = () => {
    const text = [...document.querySelectorAll("#stage figure")].map((figure) => figure.className).join(" ");
    if (seen.at(-1) !== text) seen.push(text);
    measure();
  };
  measure();
  new MutationObserver(note).observe(document.body,
    {subtree: true, childList: true, attributes: true, attributeFilter: ["class", "hidden"]});
}"""
"""Notes the states of the images in `seen`; `measure()` counts the places that parts of the page had."""

OVERFLOW = """() => [...document.querySelectorAll("body *")]
  .filter((node) => node.checkVisibility() && node.getBoundingClientRect().right > innerWidth + 0.5)
  .filter((node) => !node.closest("pre, thead"))
  .map((node) => node.outerHTML.slice(0, 80))"""
"""Returns the elements that reach beyond the right edge of the window."""
