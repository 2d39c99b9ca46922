// A box that filters the tables of a page. `?find=` in the address fills it.
document.querySelectorAll("div.filter").forEach(function (place) {
  var page = place.parentElement;
  var box = document.createElement("input");
  var said = document.createElement("span");
  box.type = "search";
  box.placeholder = place.dataset.hint || "";
  box.setAttribute("aria-label", "Filter the tables");
  said.setAttribute("aria-live", "polite");
  place.append(box, said);

  function filter() {
    var words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    var shown = 0;
    page.querySelectorAll("tbody tr").forEach(function (row) {
      var text = row.textContent.toLowerCase();
      var fits = words.every(function (word) { return text.includes(word); });
      row.hidden = !fits;
      shown += fits ? 1 : 0;
    });
    said.textContent = words.length ? (shown === 1 ? "1 line" : shown + " lines") : "";
  }

  box.value = new URLSearchParams(location.search).get("find") || "";
  box.addEventListener("input", filter);
  filter();
});
