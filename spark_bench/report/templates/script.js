// Sorting and filtering for those who have scripts: without this file, the page reads the same.
'use strict';

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

// Missing values come last whichever way the others go.
const compare = (a, b, isNumber, sign) => {
  if (a === '' || b === '') return (a === '') - (b === '');
  return sign * (isNumber ? Number(a) - Number(b) : a.localeCompare(b, 'en', { numeric: true }));
};

const sortRows = (table, original, place, direction, isNumber) => {
  const value = row => row.cells[place].dataset.sort ?? '';
  const sign = direction === 'ascending' ? 1 : -1;
  const rows = direction === 'none' ? original
    : [...original].sort((a, b) => compare(value(a), value(b), isNumber, sign));
  table.tBodies[0].append(...rows);
};

const makeChoice = (name, values, all) => {
  const select = make('select', {}, make('option', { value: '' }, all));
  select.append(...values.map(value => make('option', { value }, value)));
  return { select, label: make('label', {}, make('span', {}, name), select) };
};

// A heading becomes a button: the first press sorts numbers from high to low and text from A to Z, the second
// the other way round, the third brings the order of the page back. A narrow page hides the column of backbones and
// scrolls others out of sight, so it has a choice of the columns too.
const makeSortable = (table, update) => {
  const original = [...table.tBodies[0].rows];
  const headings = [...table.tHead.rows[0].cells];
  const names = headings.map(heading => heading.textContent);
  const isNumber = place => headings[place].dataset.sortType === 'number';
  const ordersOf = place => isNumber(place) ? ['descending', 'ascending', 'none'] : ['ascending', 'descending', 'none'];
  const differs = place => new Set(original.map(row => row.cells[place].dataset.sort)).size > 1;
  const { select, label } = makeChoice('Sorted by', [], 'as listed');
  const sort = (place, direction) => {
    headings.forEach(heading => heading.removeAttribute('aria-sort'));
    if (direction !== 'none') headings[place].setAttribute('aria-sort', direction);
    select.value = direction === 'none' ? '' : String(place);
    sortRows(table, original, place, direction, isNumber(place));
    update();
  };
  headings.forEach((heading, place) => {
    const button = make('button', { type: 'button' }, ...heading.childNodes);
    heading.append(button);
    button.addEventListener('click', () => {
      const orders = ordersOf(place);
      sort(place, orders[(orders.indexOf(heading.getAttribute('aria-sort')) + 1) % orders.length]);
    });
    if (differs(place)) select.append(make('option', { value: String(place) }, names[place]));
  });
  select.addEventListener('input', () => {
    const place = Number(select.value);
    sort(place, select.value === '' ? 'none' : ordersOf(place)[0]);
  });
  if (select.length > 1) (table.closest('.wide') ?? table).before(make('div', { className: 'filters narrow' }, label));
};

const makeSearch = (name, hint) => {
  const input = make('input', { type: 'search', placeholder: hint, autocomplete: 'off', spellcheck: false });
  return { input, label: make('label', {}, make('span', {}, name), input) };
};

const words = text => text.toLowerCase().split(/\s+/).filter(Boolean);

// Fields above a table that hide the rows which do not match.
const makeFilterable = (table, update) => {
  const rows = [...table.tBodies[0].rows];
  const distinct = key => [...new Set(rows.map(row => row.dataset[key]))];
  const search = makeSearch('Filter', distinct('arch').length > 1 ? 'backbone, method' : 'method');
  const choices = [['arch', 'Backbone', 'all backbones'], ['origin', 'Origin', 'measured and published'],
    ['status', 'Status', 'complete or not']]
    .filter(([key]) => distinct(key).length > 1)
    .map(([key, name, all]) => ({ key, ...makeChoice(name, distinct(key), all) }));
  const count = make('output', {});
  count.setAttribute('aria-live', 'polite');
  const reset = make('button', { type: 'reset' }, 'Show all');
  const form = make('form', { className: 'filters' }, search.label, ...choices.map(choice => choice.label), reset, count);
  form.setAttribute('aria-label', 'Filter the rows of the table');
  const apply = () => {
    const wanted = words(search.input.value);
    let shown = 0;
    for (const row of rows) {
      const text = [row.dataset.arch, row.dataset.method, row.dataset.origin, row.textContent].join(' ').toLowerCase();
      const fits = wanted.every(word => text.includes(word))
        && choices.every(({ key, select }) => !select.value || row.dataset[key] === select.value);
      row.hidden = !fits;
      shown += fits;
    }
    count.textContent = shown === rows.length ? '' : `${shown} of ${rows.length} rows`;
    reset.disabled = shown === rows.length && !search.input.value;
    update();
  };
  form.addEventListener('input', apply);
  form.addEventListener('reset', () => setTimeout(apply));
  form.addEventListener('submit', event => event.preventDefault());
  reset.disabled = true;
  (table.closest('.wide') ?? table).before(form);
};

for (const table of document.querySelectorAll('table.results')) {
  const rows = [...table.tBodies[0].rows];
  // Out of the page's order, or with rows hidden, every row has to name its backbone.
  const update = () => table.classList.toggle('flat',
    table.querySelector('th[aria-sort]') !== null || rows.some(row => row.hidden));
  if (rows.length > 3) makeFilterable(table, update);
  makeSortable(table, update);
}

const recordsPart = document.getElementById('provenance');
const entries = [...recordsPart.querySelectorAll('.cell > details')];
const showEntries = wanted => {
  for (const entry of entries) {
    const text = entry.querySelector('summary').textContent.toLowerCase();
    entry.hidden = !wanted.every(word => text.includes(word));
  }
  for (const cell of recordsPart.querySelectorAll('.cell')) {
    cell.hidden = ![...cell.children].some(entry => !entry.hidden);
  }
  return entries.filter(entry => !entry.hidden).length;
};

const recordSearch = makeSearch('Filter', 'such as: detection spark');
if (entries.length > 5) {
  const count = make('output', {});
  count.setAttribute('aria-live', 'polite');
  const form = make('form', { className: 'filters' }, recordSearch.label, count);
  form.setAttribute('aria-label', 'Filter the records');
  form.addEventListener('submit', event => event.preventDefault());
  form.addEventListener('input', () => {
    const shown = showEntries(words(recordSearch.input.value));
    count.textContent = shown === entries.length ? '' : `${shown} of ${entries.length} records`;
  });
  recordsPart.querySelector('h3').before(form);
}

// A link to a record opens it, and all seeds if it leads to several; a record that is filtered out comes back.
const openTarget = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target === null || !recordsPart.contains(target) || target === recordsPart) return;
  if (target.closest('[hidden]')) {
    recordSearch.input.value = '';
    recordSearch.input.dispatchEvent(new Event('input', { bubbles: true }));
  }
  const opened = target.matches('.cell') ? [...target.children] : [target.closest('details')];
  for (const entry of opened) if (entry) entry.open = true;
  target.scrollIntoView();
};
addEventListener('hashchange', openTarget);
addEventListener('load', openTarget);
